"""Clips whose labels deserve a second hearing, as tables to correct and to train from again."""

import csv
import io
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stapes.clips import Clip, printable
from stapes.files import file_name, write_text
from stapes.tables import quoted

COLUMNS = (
    "file_name",
    "label",
    "new_label",
    "suggested",
    "disagreement",
    "probabilities",
    "start_seconds",
    "end_seconds",
)
N_SHOWN = 3
"""Most probable classes that a cell or a label of Audacity names."""

ROUNDING = 1e-9
"""Two classes this close are alike."""

Floats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A clip whose label networks disagree with that never heard it.

    Attributes:
        clip: the clip, with the label that it has.
        suggested: the class that the networks prefer.
        disagreement: how much they do, from 0.5 (as likely as the label) to 1.
        probabilities: of every class.
        duration_seconds: of the clip, where that is known.
    """

    clip: Clip
    suggested: str
    disagreement: float
    probabilities: dict[str, float]
    duration_seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "name": self.clip.title,
            "label": self.clip.label,
            "suggested": self.suggested,
            "disagreement": self.disagreement,
            "probabilities": self.probabilities,
            "duration_seconds": self.duration_seconds,
            "start_seconds": self.clip.start_seconds,
            "end_seconds": self.clip.end_seconds,
        }


def rank(
    clips: Sequence[Clip],
    targets: NDArray[np.int64],
    shares: Floats,
    classes: Sequence[str],
    *,
    durations_seconds: Sequence[float] | None = None,
) -> list[Suspicion]:
    """Clips that networks take for another class than their label says, the surest first.

    Confident learning (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating
    Uncertainty in Dataset Labels"): a class's threshold is the mean probability that clips
    labelled so get for it; subtracting it from the probabilities makes easy and hard classes
    comparable. A clip is listed if its label is not the likeliest class, and another still beats
    it then; the order is that of the margin between the two. Wrong labels come first and clips
    that are merely hard behind, so whoever listens may stop where the labels are right again.

    Args:
        clips: the clips [N].
        targets: class index of each label [N]; clips below 0 are none of the classes and not
            ranked.
        shares: probabilities by networks that never heard the clip's source [N, C].
        classes: their names [C].
        durations_seconds: of the clips [N].
    """
    if not len(clips) == len(targets) == len(shares) or shares.ndim != 2:
        raise ValueError(f"{len(clips)} clips, targets {targets.shape}, shares {shares.shape}")
    rows = np.flatnonzero(targets >= 0)
    lengths = [None] * len(clips) if durations_seconds is None else list(durations_seconds)
    suggested, disagreement = _disagreement(targets[rows], shares[rows].astype(np.float64))
    disagrees = shares[rows].argmax(axis=1) != targets[rows]
    listed = np.flatnonzero(disagrees & (disagreement > 0.5 + ROUNDING))
    order = listed[np.argsort(-disagreement[listed], kind="stable")]
    return [
        Suspicion(
            clips[row],
            classes[suggested[i]],
            float(disagreement[i]),
            dict(zip(classes, map(float, shares[row]), strict=True)),
            lengths[row],
        )
        for i, row in ((i, int(rows[i])) for i in order)
    ]


def _disagreement(
    targets: NDArray[np.int64], shares: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The other class that is most likely, and how much likelier: [N], [N, C] -> [N], [N].

    The second is from 0 to 1, and 0.5 where both are alike.
    """
    n_classes, own = shares.shape[1], np.arange(len(targets))
    counts = np.bincount(targets, minlength=n_classes)
    sums = np.bincount(targets, weights=shares[own, targets], minlength=n_classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)
    adjusted = shares - thresholds + thresholds.max(initial=0.0)
    adjusted /= np.maximum(adjusted.sum(axis=1, keepdims=True), 1e-12)
    label_share = adjusted[own, targets]
    adjusted[own, targets] = -np.inf
    suggested = adjusted.argmax(axis=1)
    return suggested, np.clip((1 + adjusted[own, suggested] - label_share) / 2, 0.0, 1.0)


def write_csv(path: str | Path, suspicions: Sequence[Suspicion]) -> None:
    """Write the clips as a table to correct, for :func:`stapes.corrections.apply_labels`.

    Whoever has heard a clip writes into the empty column ``new_label`` what it is, or "-" to
    leave the clip out. Rows left as they are change nothing.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for suspicion in suspicions:
        clip = suspicion.clip
        end = "" if clip.end_seconds is None else repr(float(clip.end_seconds))
        writer.writerow(
            [
                quoted(clip.name),
                quoted(clip.label),
                "",
                quoted(suspicion.suggested),
                f"{suspicion.disagreement:.3f}",
                quoted(_likeliest(suspicion.probabilities)),
                repr(float(clip.start_seconds)) if clip.is_event else "",
                end,
            ]
        )
    # Excel takes a table for UTF-8 only by the mark.
    mark = "" if text.getvalue().isascii() else "\ufeff"
    write_text(path, mark + text.getvalue())


def _likeliest(probabilities: Mapping[str, float]) -> str:
    """The most probable classes: "dog 0.93, cat 0.07"."""
    best = sorted(probabilities.items(), key=lambda item: -item[1])[:N_SHOWN]
    return ", ".join(f"{printable(name)} {share:.2f}" for name, share in best)


class Timeline(NamedTuple):
    """What was heard when in a clip.

    Attributes:
        start_seconds: of each segment, from the clip's beginning, ascending [M].
        probabilities: of each segment [M, C].
    """

    start_seconds: NDArray[np.float64]
    probabilities: Floats


class Region(NamedTuple):
    """A stretch of a clip in which one class is the likeliest, and its mean probability."""

    start_seconds: float
    end_seconds: float
    label: str
    probability: float


def regions(timeline: Timeline, *, segment_seconds: float, classes: Sequence[str]) -> list[Region]:
    """Segments of the same class in one: regions in order, that do not overlap.

    Where overlapping segments differ, the border is halfway between their middles.
    """
    if not len(timeline.start_seconds):
        return []
    winners = timeline.probabilities.argmax(axis=1)
    starts = timeline.start_seconds
    new = (np.diff(winners) != 0) | (np.diff(starts) > segment_seconds)
    firsts = [0, *(np.flatnonzero(new) + 1).tolist(), len(starts)]
    found = []
    for first, behind in itertools.pairwise(firsts):
        winner = int(winners[first])
        share = float(timeline.probabilities[first:behind, winner].mean())
        start = _border(starts, first, segment_seconds)[1]
        end = _border(starts, behind, segment_seconds)[0]
        found.append(Region(start, end, classes[winner], share))
    return found


def _border(starts: NDArray[np.float64], i: int, segment_seconds: float) -> tuple[float, float]:
    """Where what is before segment ``i`` ends, and where that segment's region begins."""
    if i == 0:
        return float(starts[0]), float(starts[0])
    end = float(starts[i - 1]) + segment_seconds
    if i == len(starts) or starts[i] >= end:
        return end, float(starts[min(i, len(starts) - 1)])
    border = float(starts[i - 1] + starts[i] + segment_seconds) / 2
    return border, border


def write_audacity(
    folder: str | Path,
    suspicions: Sequence[Suspicion],
    timelines: Sequence[Timeline],
    *,
    segment_seconds: float,
) -> list[Path]:
    """Write a file of labels for each recording, to open in Audacity beside the recording.

    Each suspicious clip gives one label over all of it ("labelled cat, sounds like dog 0.93") and
    one for every region. File > Import > Labels reads them
    (manual.audacityteam.org/man/importing_and_exporting_labels.html).

    Args:
        folder: made if missing; the files are numbered in the order of suspicion.
        suspicions: the clips.
        timelines: what was heard when in each, classes in the order of its probabilities.
        segment_seconds: length of a segment.

    Returns:
        The files, most suspicious recording first.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = defaultdict(list)
    for suspicion, timeline in zip(suspicions, timelines, strict=True):
        lines[suspicion.clip.name] += _label_lines(suspicion, timeline, segment_seconds)
    written = []
    for number, (name, content) in enumerate(lines.items(), start=1):
        path = place / f"{number:03d} {file_name(name)}.txt"
        write_text(path, "".join(content))
        written.append(path)
    return written


def _label_lines(suspicion: Suspicion, timeline: Timeline, segment_seconds: float) -> Iterable[str]:
    clip, heard = suspicion.clip, suspicion.probabilities
    found = regions(timeline, segment_seconds=segment_seconds, classes=list(heard))
    length = suspicion.duration_seconds
    if length is None:
        length = max((region.end_seconds for region in found), default=segment_seconds)
    words = f"labelled {clip.label}, sounds like {suspicion.suggested}"
    yield _line(clip, 0.0, length, f"{words} {heard[suspicion.suggested]:.2f}")
    for region in found:
        end = min(region.end_seconds, length)
        words = f"{region.label} {region.probability:.2f}"
        yield _line(clip, min(region.start_seconds, end), end, words)


def _line(clip: Clip, start: float, end: float, words: str) -> str:
    """One label, from times in the clip to times in its recording."""
    offset = clip.start_seconds
    return f"{offset + start:.6f}\t{offset + end:.6f}\t{printable(words)}\n"
