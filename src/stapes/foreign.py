"""Recordings that are none of the classes, to see which of them are taken for one."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stapes.clips import Clip, Dataset, Skip, listing
from stapes.dataset import DecodedDataset, decode
from stapes.errors import DataError
from stapes.folders import find_recordings
from stapes.memory import shares_audio
from stapes.progress import Progress


def read_foreign(
    folders: Sequence[str | Path], progress: Progress, *, beside: DecodedDataset
) -> DecodedDataset:
    """Foreign sounds; the folder they lie in says what they are.

    Args:
        folders: where they are; none for no sounds.
        progress: told how it goes.
        beside: the clips of the classes, whose sample rate it is; what shares audio with one of
            them is left out.

    Raises:
        DataError: a folder without recordings, or nothing is left.
    """
    if not folders:
        return DecodedDataset((), [], beside.sample_rate, (), (), ())
    listed, skipped = list[Clip](), list[Skip]()
    for folder in (Path(os.path.abspath(folder)) for folder in folders):
        found = find_recordings(folder)
        if not found.names:
            raise DataError(f"{folder}: no recordings in it; give a folder of foreign sounds")
        known = {os.path.realpath(clip.path) for clip in listed}
        clips = [_clip(folder, name) for name in found.names]
        listed += [clip for clip in clips if os.path.realpath(clip.path) not in known]
        skipped += found.skipped
    unlabelled = tuple(replace(clip, label="") for clip in listed)  # copies contradict nothing
    decoded = decode(
        Dataset(Path(folders[0]), unlabelled, tuple(skipped)),
        sample_rate=beside.sample_rate,
        progress=progress,
        task="reading foreign sounds",
        training=False,
    )
    label_of = {clip.path: clip.label for clip in listed}
    labelled = tuple(replace(clip, label=label_of[clip.path]) for clip in decoded.clips)
    return strangers(
        replace(decoded, clips=labelled),
        known=shares_audio(decoded, beside, progress=progress),
        why="they share audio with recordings of the data",
    )


def strangers(foreign: DecodedDataset, *, known: Sequence[bool], why: str) -> DecodedDataset:
    """Foreign sounds but for those that are known; a warning tells of these.

    Args:
        foreign: the sounds.
        known: which of them are to be left out.
        why: the reason, for messages.

    Raises:
        DataError: nothing is left.
    """
    if not any(known):
        return foreign
    names = [clip.title for clip, is_known in zip(foreign.clips, known, strict=True) if is_known]
    told = f"{len(names)} of {len(known)} foreign sounds prove nothing, {why} ({listing(names)})"
    if all(known):
        raise DataError(f"{told}: give a folder of others")
    left = foreign.only([i for i, is_known in enumerate(known) if not is_known])
    return replace(left, warnings=(*left.warnings, f"{told}; these are left out"))


def _clip(folder: Path, name: str) -> Clip:
    """The inner folder names the sound, or the folder given if there is none."""
    label = name.split("/")[0] if "/" in name else folder.name
    title = f"{folder.name}/{name}"
    return Clip(folder / name, title, label, source=title)
