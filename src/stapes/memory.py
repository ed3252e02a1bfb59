"""Which recordings a model learnt from: by the marks it carries, and by its training set."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from stapes import runs
from stapes.checkpoint import Model
from stapes.clips import Clip
from stapes.copies import MARK_LENGTH, join, mark, same_files
from stapes.dataset import DecodedDataset, decode, list_clips
from stapes.errors import DataError
from stapes.progress import Progress
from stapes.sharing import cache_folder, find_shared


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known of the recordings that a model learnt from.

    Attributes:
        marks: of each of them.
        calibrating: marks of those that it did not learn from, but that set its temperature and
            thresholds.
        clips: those that can still be read, if the model lies in the folder of its run.
        warnings: what is not known.
    """

    marks: frozenset[str]
    calibrating: frozenset[str]
    clips: DecodedDataset
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model, path: str | Path, *, progress: Progress) -> Self:
        """Read what can be read.

        Args:
            model: the model.
            path: where it came from: a file, a run folder or a name.
            progress: told how it goes.
        """
        marks, calibrating = (_marks(model, key) for key in ("recordings", "calibrated_on"))
        data = _data_of(Path(path))
        rate = model.config.sample_rate
        read = _read(data if marks else None, sample_rate=rate, progress=progress)
        clips = read.only([i for i, w in enumerate(read.waveforms) if mark(w) in marks])
        where = f"no longer in {data}" if data else "not at hand"
        told = f"what {path} learnt from is {where}: only exact copies are recognised"
        return cls(marks, calibrating, clips, (told,) if marks and not clips.clips else ())

    def knows(self, decoded: DecodedDataset, *, progress: Progress) -> list[bool]:
        """For each clip, whether the model learnt from it, or from what shares audio with it.

        The very samples are known by their marks. Of recordings that can still be read, audio that
        overlaps, or comes at another rate, at another level or in another format, is recognised,
        too, and so is whatever else lies in the same file or in a copy of it.

        Args:
            decoded: the clips to recognise.
            progress: told how it goes.
        """
        known = [mark(waveform) in self.marks for waveform in decoded.waveforms]
        shared = shares_audio(decoded, self.clips, progress=progress)
        return [a or b for a, b in zip(known, shared, strict=True)]

    def calibrated_by(self, decoded: DecodedDataset) -> list[bool]:
        """For each clip, whether it set the model's temperature and thresholds."""
        return [mark(waveform) in self.calibrating for waveform in decoded.waveforms]


def _marks(model: Model, key: str) -> frozenset[str]:
    """What a model remembers of some recordings."""
    written = str(model.about.get(key, ""))
    starts = range(0, len(written), MARK_LENGTH)
    return frozenset(written[i : i + MARK_LENGTH] for i in starts)


def shares_audio(asked: DecodedDataset, among: DecodedDataset, *, progress: Progress) -> list[bool]:
    """For each clip, whether it is of one source with one of others, directly or by way of a third.

    Args:
        asked: the clips in question.
        among: the others, at the same sample rate.
        progress: told how it goes.
    """
    if not asked.clips or not among.clips:
        return [False] * len(asked.clips)
    clips = [*asked.clips, *among.clips]
    findings = find_shared(
        clips,
        [*asked.waveforms, *among.waveforms],
        sample_rate=asked.sample_rate,
        progress=progress,
        cache=cache_folder(),
    )
    sources = join(_files(clips), [finding.clips for finding in findings])
    others = set(sources[len(asked.clips) :])
    return [source in others for source in sources[: len(asked.clips)]]


def _files(clips: Sequence[Clip]) -> list[str]:
    """The file of each clip, one name for all copies of it."""
    paths = [Path(os.path.realpath(clip.path)) for clip in clips]
    first = {path: group[0] for group in same_files(paths) for path in group}
    return [os.fspath(first.get(path, path)) for path in paths]


def _data_of(model: Path) -> str | None:
    """Where the recordings are that a model was made from; None if it does not lie in that run."""
    run = model if model.is_dir() else model.parent
    try:
        metrics = json.loads((run / runs.METRICS_FILE).read_text())
        made_here = model.exists() and metrics["kind"] in ("train", "crossval")
        return str(metrics["data"]) if made_here else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(data: str | None, *, sample_rate: int, progress: Progress) -> DecodedDataset:
    """Recordings, whatever their labels, as far as they can still be read."""
    nothing = DecodedDataset((), [], sample_rate, (), (), ())
    if data is None:
        return nothing
    try:
        listed = list_clips(data)
        clips = tuple(replace(clip, label="") for clip in listed.clips)  # nothing to contradict
        return decode(
            replace(listed, clips=clips),
            sample_rate=sample_rate,
            progress=progress,
            task="reading the training set",
            training=False,
        )
    except DataError:
        return nothing
