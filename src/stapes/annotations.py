"""Clips of a table of labels, matched with the files it names."""

import itertools
import math
import os
from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

import soundfile

from stapes import audio
from stapes.clips import Clip, Dataset, Skip, listing, printable
from stapes.config import SAMPLE_RATE
from stapes.copies import join
from stapes.errors import AudioError, DataError
from stapes.folders import NOTHING, Found, find_recordings, not_a_file
from stapes.selections import is_label_track, is_selection_table, read_selections, tables_of
from stapes.tables import LabelRow, plain_name, read_labels

TABLE_NAME = "metadata.csv"
"""The table that describes the folder it is in."""

ONE_LABEL = " (a recording has one label; several at once are not supported)"


def clips_of_table(table: Path) -> Dataset:
    """Clips of a table with file_name and label, and what it says of source, fold and times.

    It may as well be a label track of Audacity's or a selection table of Raven's.
    """
    if reason := _unusable(table):
        raise DataError(f"{printable(str(table))}: {reason}: put the table of labels there")
    root, of_all = table.parent, table.name == TABLE_NAME
    if is_selection_table(table) or is_label_track(table):
        found = find_recordings(root)
        return _clips_of(read_selections(table, found.beside), found, root=root, said=table)
    rows, parts = read_labels(table)
    # A table of files that lie elsewhere says nothing of the folder that it lies in.
    elsewhere = not of_all and all(_is_outside(row.file_name, root=root) for row in rows)
    found = NOTHING if elsewhere else find_recordings(root)
    dataset = _clips_of(rows, found, root=root, said=table, of_all=of_all)
    return replace(dataset, warnings=(*_split_warnings(parts, table=table), *dataset.warnings))


def clips_of_selections(root: Path, found: Found) -> Dataset | None:
    """Clips of the label tracks and selection tables beside the recordings in a folder, if any."""
    tables = tables_of(root, sorted(os.listdir(root)), found.beside)
    rows = [row for table in tables for row in read_selections(table, found.beside)]
    return _clips_of(rows, found, root=root, said=root) if tables else None


def _clips_of(
    rows: Sequence[LabelRow], found: Found, *, root: Path, said: Path, of_all: bool = False
) -> Dataset:
    """Clips of rows, matched with their files.

    Args:
        rows: of one table or several.
        found: the recordings that there are.
        root: the folder that names are relative to.
        said: the table, or the folder of all tables, for messages.
        of_all: every recording must have a row.
    """
    where = printable(str(said))
    located, unusable = _locate(rows, root=root, where=where, found=found)
    clips = [_clip(root, row, name=name) for row, name in located]
    places = [row.where for row, _ in located]
    _check_ends(clips, places)
    kept, joined = _join_overlaps(_without_repeats(clips, places), where=where)
    named = {clip.name for clip in kept} | unusable.keys()
    warnings = (
        *_check_unlabelled(found, named, where=where, of_all=of_all),
        *_repeat_warnings(len(clips) - len(kept), where=where),
        *joined,
        *_overlap_warnings(kept, where=where),
    )
    if of_all or said == root:
        unusable |= {skip.name: skip for skip in found.skipped}
    return Dataset(root, kept, tuple(unusable.values()), found.ignored, warnings)


def _clip(root: Path, row: LabelRow, *, name: str) -> Clip:
    return Clip(
        root / name,
        name,
        row.label,
        source=row.source or name,
        fold=row.fold,
        start_seconds=row.start_seconds,
        end_seconds=row.end_seconds,
    )


def _locate(
    rows: Sequence[LabelRow], *, root: Path, where: str, found: Found
) -> tuple[list[tuple[LabelRow, str]], dict[str, Skip]]:
    """Rows with the names of their files, and by name what is there and is no recording."""
    names_like = defaultdict(list)
    for name in found.names:
        names_like[plain_name(name)].append(name)
    located, missing = [], []
    unusable: dict[str, Skip] = {}
    for row in rows:
        name = _relative(row.file_name, root=root)
        alike = names_like[plain_name(row.file_name)]
        if not os.path.lexists(root / name) and len(alike) == 1:
            name = alike[0]
        if not os.path.lexists(root / name):
            missing.append(row.file_name)
        elif reason := _unusable(root / name):
            unusable[name] = Skip(name, reason)
        else:
            located.append((row, name))
    if missing:
        raise DataError(
            f"{where}: {len(missing)} labels for missing files "
            f"({listing(list(dict.fromkeys(missing)))}): add the files or remove the rows"
        )
    return located, unusable


def _relative(file_name: str, *, root: Path) -> str:
    return os.path.relpath(os.path.join(root, file_name), root).replace(os.sep, "/")


def _is_outside(file_name: str, *, root: Path) -> bool:
    """Whether a whole path is that of something in another folder."""
    there = os.path.isabs(file_name) and os.path.lexists(file_name)
    return there and _relative(file_name, root=root.absolute()).startswith("../")


def _unusable(path: Path) -> str | None:
    try:
        return not_a_file(os.stat(path).st_mode)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _check_ends(clips: Sequence[Clip], places: Sequence[str]) -> None:
    """Raise DataError if an event reaches behind its recording, unless that is damaged."""
    durations: dict[Path, float] = {}
    for clip, place in zip(clips, places, strict=True):
        if not clip.is_event:
            continue
        if clip.path not in durations:
            durations[clip.path] = _duration_seconds(clip.path)
        last = clip.start_seconds if clip.end_seconds is None else clip.end_seconds
        if last <= durations[clip.path] + audio.END_TOLERANCE_SECONDS:
            continue
        durations[clip.path] = duration = _true_seconds(clip.path)
        if last > duration + audio.END_TOLERANCE_SECONDS:
            raise DataError(
                f"{place}: the event reaches to {last:g} s, but "
                f"{printable(clip.name)} ends at {duration:.3f} s: correct the times"
            )


def _duration_seconds(path: Path) -> float:
    """Length by the header; infinite where that cannot be read, which decoding will report."""
    try:
        return float(soundfile.info(os.fsencode(path)).duration)
    except (OSError, soundfile.SoundFileError):
        return math.inf


def _true_seconds(path: Path) -> float:
    """Length by decoding; infinite where the recording may have been longer than what is left."""
    try:
        recording = audio.read(path, sample_rate=SAMPLE_RATE)
    except AudioError:
        return math.inf
    return math.inf if "damaged" in recording.flags else recording.duration_seconds


def _without_repeats(clips: Sequence[Clip], places: Sequence[str]) -> tuple[Clip, ...]:
    """Clips in order of name and time, equal ones once; DataError if a stretch has two labels."""
    first: dict[tuple[str, float, float | None], tuple[Clip, str]] = {}
    for clip, place in zip(clips, places, strict=True):
        key = clip.name, clip.start_seconds, clip.end_seconds
        known, known_place = first.setdefault(key, (clip, place))
        if known != clip:
            what = "label" if known.label != clip.label else "source or fold"
            raise DataError(
                f"{place}: {printable(clip.name)} has another {what} than in {known_place}: "
                f"keep one of the two rows{ONE_LABEL * (what == 'label')}"
            )
    return tuple(sorted((clip for clip, _ in first.values()), key=_order))


def _order(clip: Clip) -> tuple[bytes, float, float]:
    end = math.inf if clip.end_seconds is None else clip.end_seconds
    return os.fsencode(clip.name), clip.start_seconds, end


def _join_overlaps(
    clips: tuple[Clip, ...], *, where: str
) -> tuple[tuple[Clip, ...], tuple[str, ...]]:
    """Events of one file that overlap share audio: one source, whatever the table says."""
    groups: list[list[int]] = []
    name, end = "", 0.0  # of the events so far: the file, and how far they reach
    for i, clip in enumerate(clips):
        last = math.inf if clip.end_seconds is None else clip.end_seconds
        if clip.name == name and clip.start_seconds < end:
            groups[-1].append(i)
            end = max(end, last)
        else:
            groups.append([i])
            name, end = clip.name, last
    new = [group for group in groups if len({clips[i].source for i in group}) > 1]
    if not new:
        return clips, ()
    sources = join([clip.source for clip in clips], groups)
    told = listing(list(dict.fromkeys(clips[group[0]].name for group in new)))
    return tuple(replace(c, source=s) for c, s in zip(clips, sources, strict=True)), (
        f"{where}: events of different sources overlap in {told}: they share audio,"
        " and count as one source",
    )


def _check_unlabelled(
    found: Found, named: Set[str], *, where: str, of_all: bool
) -> tuple[str, ...]:
    """``metadata.csv`` must name every recording; any other table may be a selection."""
    unlabelled = sorted(set(found.names) - named, key=os.fsencode)
    if not unlabelled:
        return ()
    message = f"{where}: {len(unlabelled)} files without labels ({listing(unlabelled)})"
    if of_all:
        raise DataError(f"{message}: add rows for them or move them away")
    return (f"{message}: they are left out",)


def _split_warnings(columns: Sequence[str], *, table: Path) -> tuple[str, ...]:
    if not columns:
        return ()
    return (
        f"{printable(str(table))}: column {listing(columns)} is not read: give a column fold, with "
        "a number for each part, to have every part judged by what learnt from the others",
    )


def _repeat_warnings(n_repeated: int, *, where: str) -> tuple[str, ...]:
    return (f"{where}: {n_repeated} repeated row(s) are read once",) if n_repeated else ()


def _overlap_warnings(clips: Sequence[Clip], *, where: str) -> tuple[str, ...]:
    """Tell of events of one file that follow each other before the first has ended."""
    names = [
        a.name
        for a, b in itertools.pairwise(clips)
        if a.name == b.name
        and a.label != b.label
        and (a.end_seconds is None or b.start_seconds < a.end_seconds)
    ]
    if not names:
        return ()
    return (
        f"{where}: {len(names)} times an event begins before one of another "
        f"class has ended ({listing(names)}): the same sound is taught as both",
    )
