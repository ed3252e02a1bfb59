"""Recordings of a result -> what a page draws and plays of each; measures nothing."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from stapes.colours import ACCENT, PAGE_MUTED, class_colour
from stapes.pages.charts import Axis, make_axis
from stapes.pages.listening import loudest_start, outline, peak_db, spectrogram
from stapes.pages.media import audio_uri, picture_uri
from stapes.pages.verdict import part
from stapes.pages.wording import SPACE, known
from stapes.segments import Waveform

MAX_MISTAKES, MAX_SUSPICIOUS, MAX_PAIRS = 8, 8, 3
"""How many wrong answers, doubtful labels and pairs of files a page shows."""

MAX_CLASSES, MAX_EXAMPLES = 12, 3
"""Classes with examples, and examples of each."""

PLAYED_SECONDS, PLAYED_SAMPLES = 4.0, 64_000
"""What a player gets at most: a page with all its sounds stays under 5 MB."""

COLUMNS, HEIGHT = 240, 60
"""Strokes of an outline and its height, in its own units."""

Recording = Callable[[str], Waveform | None]
Metrics = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sound:
    """What a page shows of a recording that could be read.

    Attributes:
        path: the outline, against the recording's own peak (of examples: full scale).
        audio: the address of what is played; "" without a player.
        left: where what is played begins, in percent of the outline.
        width: how much of the outline is played, in percent.
        words: how long it is, what is played of it and how loud it is.
    """

    path: str
    audio: str
    left: float
    width: float
    words: str


@dataclass(frozen=True, slots=True)
class Card:
    """A recording that somebody should listen to.

    Attributes:
        name: of the recording.
        label: that it has.
        other: the class it was taken for.
        share: the probability of that class, or how much its label is doubted.
        colours: of the label and of the other class.
        sound: None if the recording could not be read.
        anchor: its place on the page.
        shown_at: the place of another card with the same recording; "" if there is none.
    """

    name: str
    label: str
    other: str
    share: float | None
    colours: tuple[str, str]
    sound: Sound | None
    anchor: str
    shown_at: str = ""


@dataclass(frozen=True, slots=True)
class Track:
    """One recording of a pair on the time axis of both; places in percent."""

    name: str
    label: str
    left: float
    width: float
    picture: str
    audio: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two recordings with something in common, laid so that it lies at the same time.

    Attributes:
        kind: of finding.
        words: what was found.
        tracks: none where a recording could not be read.
        names: of the recordings.
        shared: where the common stretch begins and how long it is, in percent; None if unknown.
        axis: seconds since the first recording began.
    """

    kind: str
    words: str
    names: tuple[str, ...]
    tracks: tuple[Track, ...] = ()
    shared: tuple[float, float] | None = None
    axis: Axis | None = None


def _mistakes(metrics: Metrics) -> Sequence[Metrics]:
    return (metrics.get("mistakes") or [])[:MAX_MISTAKES]


def _suspicious(metrics: Metrics) -> Sequence[Metrics]:
    return (metrics.get("suspicious") or [])[:MAX_SUSPICIOUS]


def _findings(metrics: Metrics) -> list[Metrics]:
    """The first findings about two recordings, those first that contradict labels or splits."""
    findings = part(metrics, "audit", "findings") or ()
    shared = [f for f in findings if len(f.get("files") or ()) > 1]
    return sorted(shared, key=lambda finding: not finding.get("concerns"))[:MAX_PAIRS]


def _examples(metrics: Metrics) -> dict[str, list[str]]:
    chosen = islice(part(metrics, "examples").items(), MAX_CLASSES)
    return {label: list(names)[:MAX_EXAMPLES] for label, names in chosen}


def mistakes(metrics: Metrics, recording: Recording, *, sample_rate: int) -> list[Card]:
    """The wrong answers that were surest of themselves."""
    return [
        _card(
            row,
            f"mistake-{number}",
            (row.get("predicted", ""), row.get("probability")),
            classes=metrics.get("classes") or (),
            sound=sound(recording(row["name"]), sample_rate=sample_rate),
        )
        for number, row in enumerate(_mistakes(metrics), 1)
    ]


def suspicions(
    metrics: Metrics, recording: Recording, *, sample_rate: int, shown: Sequence[Card]
) -> list[Card]:
    """The most doubtful labels; one that is among ``shown`` is played there."""
    places, cards = {card.name: card.anchor for card in shown}, []
    for number, row in enumerate(_suspicious(metrics), 1):
        place = places.get(row["name"], "")
        waveform = None if place else recording(row["name"])
        cards.append(
            _card(
                row,
                f"label-{number}",
                (row.get("suggested", ""), row.get("disagreement")),
                classes=metrics.get("classes") or (),
                sound=sound(waveform, sample_rate=sample_rate),
                shown_at=place,
            )
        )
    return cards


def _card(
    row: Metrics,
    anchor: str,
    answer: tuple[str, float | None],
    *,
    classes: Sequence[str],
    sound: Sound | None,
    shown_at: str = "",
) -> Card:
    label, (other, share) = row.get("label", ""), answer
    colours = _colour(label, classes), _colour(other, classes)
    return Card(row["name"], label, other, share, colours, sound, anchor, shown_at)


def _colour(label: str, classes: Sequence[str]) -> str:
    return class_colour(list(classes).index(label)) if label in classes else PAGE_MUTED


def sound(waveform: Waveform | None, *, sample_rate: int) -> Sound | None:
    """Outline and loudest part of a recording [T]; None of nothing."""
    if waveform is None or not len(waveform):
        return None
    length, total = _most_samples(sample_rate), len(waveform)
    start = loudest_start(waveform, length=length)
    played = waveform[start : start + length]
    words = f"{total / sample_rate:.1f}{SPACE}s"
    if len(played) < total:
        words += f", played: the loudest {length / sample_rate:.3g}{SPACE}s"
        words += f" from {start / sample_rate:.1f}{SPACE}s on"
    words += f", peak {_decibels(peak_db(waveform))}"
    return Sound(
        path=outline(waveform, n_columns=COLUMNS, height=HEIGHT),
        audio=audio_uri(played, sample_rate=sample_rate),
        left=round(100 * start / total, 2),
        width=round(100 * len(played) / total, 2),
        words=words,
    )


def _most_samples(sample_rate: int) -> int:
    """How much of a recording a player gets."""
    return min(round(PLAYED_SECONDS * sample_rate), PLAYED_SAMPLES)


def _decibels(level: float) -> str:
    """A level in words, without a minus before zero."""
    return f"{round(level)}{SPACE}dB".replace("-", "−") if math.isfinite(level) else "0: silence"


def examples(
    metrics: Metrics, recording: Recording, *, sample_rate: int
) -> list[tuple[str, str, list[tuple[str, Sound]]]]:
    """For each class its name, its colour and the outlines of some recordings at full scale."""
    found = []
    for label, names in _examples(metrics).items():
        waveforms = [(name, recording(name)) for name in names]
        drawn = [(name, _picture(w, sample_rate)) for name, w in waveforms if w is not None]
        if drawn:
            found.append((label, _colour(label, metrics.get("classes") or ()), drawn))
    return found


def _picture(waveform: Waveform, sample_rate: int) -> Sound:
    path = outline(waveform, n_columns=COLUMNS, height=HEIGHT, full_scale=True)
    return Sound(path, "", 0, 0, f"{len(waveform) / sample_rate:.1f} s")


def pairs(metrics: Metrics, recording: Recording, *, sample_rate: int) -> list[Pair]:
    """The first findings of the audit, with both recordings where they can be read."""
    return [_pair(finding, recording, sample_rate) for finding in _findings(metrics)]


def _pair(finding: Metrics, recording: Recording, sample_rate: int) -> Pair:
    """Two spectrograms on one time axis; the second begins ``offset_seconds`` after the first."""
    names = tuple(finding["files"])
    kind, words = str(finding.get("kind", "")).replace("_", " "), finding.get("words", "")
    first, second = (recording(name) for name in names[:2])
    if first is None or second is None or not len(first) or not len(second):
        return Pair(kind, words, names)
    given = finding.get("offset_seconds")
    offset = float(given) if known(given) else 0.0
    begins = (0.0, offset)
    ends = (len(first) / sample_rate, offset + len(second) / sample_rate)
    axis = make_axis(min(begins), max(ends), label="seconds", words=lambda v: f"{v:.3g}")
    common = max(begins), min(ends)
    labels = [*(finding.get("labels") or ()), "", ""]
    tracks = tuple(
        _track(name, label, waveform, begin, axis=axis, listen=(common[0], sample_rate))
        for name, label, waveform, begin in zip(
            names, labels, (first, second), begins, strict=False
        )
    )
    overlaps = known(given) and common[1] > common[0]
    left, right = (axis.place(end) for end in common)
    shared = (left, round(right - left, 2)) if overlaps else None
    return Pair(kind, words, names, tracks, shared, axis)


def _track(
    name: str,
    label: str,
    waveform: Waveform,
    begin: float,
    *,
    axis: Axis,
    listen: tuple[float, int],
) -> Track:
    """A recording that begins at a time on the axis, played from where both sound."""
    common, sample_rate = listen
    start = min(max(round((common - begin) * sample_rate), 0), len(waveform) - 1)
    length = _most_samples(sample_rate)
    left = axis.place(begin)
    width = round(axis.place(begin + len(waveform) / sample_rate) - left, 2)
    return Track(
        name,
        label,
        left,
        width,
        picture_uri(spectrogram(waveform), colour=ACCENT),
        audio_uri(waveform[start : start + length], sample_rate=sample_rate),
    )
