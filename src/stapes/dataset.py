"""Labelled clips from folders and tables, and their waveforms."""

import os
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import filterfalse
from pathlib import Path

from stapes import audio
from stapes.clips import Clip, Dataset, Skip, listing, printable
from stapes.config import SAMPLE_RATE
from stapes.copies import is_constant, join, same_files, waveform_key
from stapes.errors import AudioError, DataError
from stapes.layouts import read_layout
from stapes.negatives import beside_negatives, is_negative
from stapes.progress import Progress, silent
from stapes.segments import Waveform

N_THREADS = 2
"""Clips read at a time; decoding releases the interpreter, and more would fill the memory."""


@dataclass(frozen=True, slots=True)
class DecodedDataset:
    """Clips and their waveforms, in the order of the data set.

    Attributes:
        clips: the clips that could be read.
        waveforms: mono float32 [T] of each clip, T its own.
        sample_rate: Hz.
        flags: what :func:`stapes.audio.read` found to say of each clip, such as "damaged".
        skipped: inputs left out when listing and when reading.
        warnings: what the user should know before trusting a result.
        file_sample_rates: of the file of each clip, in Hz.
    """

    clips: tuple[Clip, ...]
    waveforms: list[Waveform]
    sample_rate: int
    flags: tuple[tuple[str, ...], ...]
    skipped: tuple[Skip, ...]
    warnings: tuple[str, ...]
    file_sample_rates: tuple[int, ...] = ()

    def pick(self, indices: Sequence[int]) -> tuple[list[Clip], list[Waveform]]:
        """Some of the clips and their waveforms."""
        return [self.clips[i] for i in indices], [self.waveforms[i] for i in indices]

    def only(self, indices: Sequence[int]) -> "DecodedDataset":
        """The same data set with only some of the clips."""
        clips, waveforms = self.pick(indices)
        return replace(
            self,
            clips=tuple(clips),
            waveforms=waveforms,
            flags=tuple(self.flags[i] for i in indices),
            file_sample_rates=tuple(self.file_sample_rates[i] for i in indices),
        )


def load_dataset(data: str | Path) -> Dataset:
    """List the labelled clips of a folder or table; recordings are not decoded.

    Args:
        data: one of

            - a folder of class folders, whatever they contain;
            - a folder with ``metadata.csv``, or a CSV: columns ``file_name`` (relative to the
              table), ``label`` and optionally ``source``, ``fold``, ``start_seconds``,
              ``end_seconds``. ``metadata.csv`` must name every recording of its folder, any
              other table may name some of them;
            - a folder of recordings with Audacity's label tracks or Raven's selection tables beside
              them, or one such table (:mod:`stapes.selections`);
            - a folder with ``train`` and ``test`` and class folders in these;
            - the Kaggle set mmoreaux/audio-cats-and-dogs as downloaded, flat or in folders.

    Returns:
        The clips in byte order of names. Without the column ``source`` every file is its own;
        files that are copies of one another are put into one source, with a warning.

    Raises:
        DataError: nothing to read, or labels that contradict the files or each other.
    """
    return join_copies(list_clips(data))


def join_copies(dataset: Dataset) -> Dataset:
    """Put files that are copies of one another into one source, with a warning.

    Raises:
        DataError: copies with different labels.
    """
    clips, warnings = _join_copies(dataset.clips, _file_keys(dataset.clips))
    return replace(dataset, clips=clips, warnings=dataset.warnings + warnings)


def list_clips(data: str | Path) -> Dataset:
    """List the labelled clips as they are given; copies are not looked for.

    Raises:
        DataError: nothing to read, or labels that contradict the files.
    """
    dataset = read_layout(Path(data))
    if not dataset.clips:
        reasons = f"; first skipped: {_told(dataset.skipped[0])}" if dataset.skipped else ""
        raise DataError(
            f"{printable(str(data))}: no recordings (of .wav, .flac, .ogg, .mp3 and so on) found "
            f"in class folders or by a table{reasons}"
        )
    return dataset


def _file_keys(clips: Sequence[Clip]) -> list[int | None]:
    """A number for each clip whose file is a copy of another's, equal for copies.

    Copies with different labels are read first: two damaged or silent files contradict nothing.
    """
    labels = defaultdict(set)
    for clip in clips:
        labels[clip.path].add(clip.label)
    number: dict[Path, int] = {}
    for i, group in enumerate(same_files(list(labels))):
        if len(set.union(*(labels[path] for path in group))) == 1 or _says_something(group[0]):
            number |= dict.fromkeys(group, i)
    return [number.get(clip.path) for clip in clips]


def _says_something(path: Path) -> bool:
    result = read_clip(Clip(path, path.name, "", ""), sample_rate=SAMPLE_RATE)
    return not isinstance(result, Skip) and not is_constant(result.waveform)


def decode(
    dataset: Dataset,
    *,
    sample_rate: int,
    progress: Progress = silent,
    task: str = "reading",
    training: bool = True,
) -> DecodedDataset:
    """Read all clips; those that cannot be read are skipped, with the reason.

    Args:
        dataset: what to read.
        sample_rate: Hz.
        progress: told after each clip.
        task: what it is told that this is.
        training: whether two classes, and every class of the data set, must be left.

    Returns:
        What could be read, independent of the timing of threads. Clips with the very same
        samples are put into one source, with a warning.

    Raises:
        DataError: nothing or too few classes are left, or the same samples have two labels.
    """
    results = []
    for result in _read_all(dataset.clips, sample_rate=sample_rate):
        results.append(result)
        progress(task, len(results), len(dataset.clips), "")
    pairs = list(zip(dataset.clips, results, strict=True))
    read = [(clip, result) for clip, result in pairs if not isinstance(result, Skip)]
    skipped = dataset.skipped + tuple(result for _, result in pairs if isinstance(result, Skip))
    _check_classes(dataset, [clip for clip, _ in read], skipped=skipped, training=training)
    waveforms = [recording.waveform for _, recording in read]
    clips, warnings = _join_copies(
        [clip for clip, _ in read], [waveform_key(waveform) for waveform in waveforms]
    )
    told = tuple(f"{printable(c.name)}: {note}" for c, r in read for note in r.notes)
    return DecodedDataset(
        clips=clips,
        waveforms=waveforms,
        sample_rate=sample_rate,
        flags=tuple(tuple(recording.flags) for _, recording in read),
        skipped=skipped,
        warnings=tuple(dict.fromkeys(dataset.warnings + told + warnings)),
        file_sample_rates=tuple(recording.file_sample_rate for _, recording in read),
    )


def _read_all(clips: Sequence[Clip], *, sample_rate: int) -> Iterator[audio.Recording | Skip]:
    """Recordings in the order of the clips, a few threads ahead."""
    pool = ThreadPoolExecutor(N_THREADS)
    try:
        yield from pool.map(lambda clip: read_clip(clip, sample_rate=sample_rate), clips)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def read_clip(clip: Clip, *, sample_rate: int) -> audio.Recording | Skip:
    """Read one clip, or say why it cannot be read: damaged, gone, or changed meanwhile."""
    try:
        before = os.stat(clip.path)
        recording = audio.read(
            clip.path,
            sample_rate=sample_rate,
            start_seconds=clip.start_seconds,
            end_seconds=clip.end_seconds,
        )
        after = os.stat(clip.path)
    except AudioError as error:
        return Skip(clip.name, str(error).removeprefix(f"{clip.path}: "))  # Skip names the file
    except OSError as error:
        return Skip(clip.name, f"cannot be read: {error.strerror}")
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return Skip(clip.name, "changed while it was read")
    return recording


def _check_classes(
    dataset: Dataset, clips: Sequence[Clip], *, skipped: Sequence[Skip], training: bool
) -> None:
    left = sorted({clip.label for clip in clips if not training or not is_negative(clip.label)})
    lost = sorted(set(filterfalse(is_negative, dataset.classes)) - set(left))
    where = printable(str(dataset.root))
    of_lost = {clip.name for clip in dataset.clips if clip.label in lost}
    skipped = sorted(skipped, key=lambda skip: skip.name not in of_lost)
    first = f"; first skipped: {_told(skipped[0])}" if skipped else ""
    if not left and not lost:
        raise DataError(f"{where}: nothing of a class{beside_negatives(dataset.classes)}{first}")
    if not left or (lost and training):
        of_class = f" of class {listing(lost)}" if any(lost) else ""
        raise DataError(f"{where}: nothing{of_class} can be read{first}")
    if len(left) < 2 and training:
        raise DataError(
            f"{where}: only one class, {listing(left)}{beside_negatives(dataset.classes)}: give"
            f" recordings of at least two{first}"
        )


def _join_copies(
    clips: Sequence[Clip], keys: Sequence[Hashable | None]
) -> tuple[tuple[Clip, ...], tuple[str, ...]]:
    """Put clips with equal keys into one source.

    Args:
        clips: the clips.
        keys: what a clip's audio is, equal for copies; None where there is nothing to compare.

    Returns:
        The clips with their new sources, and warnings if any were joined.

    Raises:
        DataError: copies with different labels.
    """
    groups = defaultdict(list)
    for i, key in enumerate(keys):
        if key is not None:
            groups[key].append(i)
    copies = [group for group in groups.values() if len({clips[i].path for i in group}) > 1]
    _check_conflicts(clips, copies)
    sources = join([clip.source for clip in clips], copies)
    joined = tuple(replace(c, source=s) for c, s in zip(clips, sources, strict=True))
    return joined, _join_warnings(clips, copies) + _leak_warnings(clips, copies)


def _check_conflicts(clips: Sequence[Clip], copies: Sequence[Sequence[int]]) -> None:
    """Raise DataError if copies of one stretch of audio have different labels."""
    pairs = []
    for group in copies:
        first: dict[tuple[float, float | None], Clip] = {}
        for clip in (clips[i] for i in group):
            known = first.setdefault((clip.start_seconds, clip.end_seconds), clip)
            if known.label != clip.label:
                pairs.append(f"{known.name} ({known.label}) = {clip.name} ({clip.label})")
    if pairs:
        raise DataError(
            f"{len(pairs)} pairs of copies have different labels: {listing(pairs)}: "
            f"remove the wrong one of each"
        )


def _join_warnings(clips: Sequence[Clip], copies: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """Tell of copies that the data took for different sources."""
    joined = [group for group in copies if len({clips[i].source for i in group}) > 1]
    if not joined:
        return ()
    n_clips = sum(len(group) for group in joined)
    return (
        f"{n_clips} clips are copies of one another and now count as {len(joined)} source(s): "
        f"{listing(_pairs(clips, joined))}",
    )


def _leak_warnings(clips: Sequence[Clip], copies: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """Tell of copies that the data's own split puts on both sides."""
    leaks = [group for group in copies if {"train", "test"} <= {clips[i].part for i in group}]
    if not leaks:
        return ()
    return (
        f"THE SAME AUDIO IS IN TRAIN AND TEST {len(leaks)} time(s), results on this test part "
        f"are too good: {listing(_pairs(clips, leaks))}",
    )


def _pairs(clips: Sequence[Clip], groups: Sequence[Sequence[int]]) -> list[str]:
    return [f"{clips[group[0]].name} = {clips[group[-1]].name}" for group in groups]


def _told(skip: Skip) -> str:
    return f"{printable(skip.name)}: {printable(skip.reason)}"
