"""Clips of a table of labels, matched with the files it names."""

import itertools
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import soundfile

from stapes.clips import Clip, Dataset, Skip, listing, printable
from stapes.errors import DataError
from stapes.folders import Found, find_recordings, not_a_file
from stapes.tables import LabelRow, read_labels

TABLE_NAME = "metadata.csv"
"""The table that describes the folder it is in."""

END_TOLERANCE_SECONDS = 0.01
"""By how much an event may end behind its recording: the rounding of annotation programs."""


def clips_of_table(table: Path) -> Dataset:
    """Clips of a table with file_name and label, and what it says of source, fold and times."""
    root = table.parent
    rows = read_labels(table)
    found = find_recordings(root)
    names, skipped = _locate(rows, table=table, found=found)
    clips = [
        Clip(
            root / name,
            name,
            row.label,
            source=row.source or name,
            fold=row.fold,
            start_seconds=row.start_seconds,
            end_seconds=row.end_seconds,
        )
        for row, name in zip(rows, names, strict=True)
        if name is not None
    ]
    lines = [row.line for row, name in zip(rows, names, strict=True) if name is not None]
    _check_ends(clips, lines, table=table)
    kept, repeated = _without_repeats(clips, lines, table=table)
    warnings = _check_unlabelled(found, {*names, *(skip.name for skip in skipped)}, table=table)
    if repeated:
        warnings += (f"{printable(str(table))}: {repeated} repeated rows are read once",)
    warnings += _overlap_warnings(kept, table=table)
    other = [skip for skip in found.skipped if skip.name not in {skip.name for skip in skipped}]
    return Dataset(root, kept, (*skipped, *other), found.ignored, warnings)


def _locate(
    rows: Sequence[LabelRow], *, table: Path, found: Found
) -> tuple[list[str | None], list[Skip]]:
    """The name of each row's file, None where it is skipped."""
    root = table.parent
    alike: dict[str, set[str]] = defaultdict(set)
    for name in found.names:
        alike[_plain(name)].add(name)
    names: list[str | None] = []
    skipped: dict[str, Skip] = {}
    missing: dict[str, None] = {}
    for row in rows:
        name = _relative(row.file_name, root=root)
        if not os.path.lexists(root / name):
            candidates = alike.get(_plain(row.file_name), set())
            name = next(iter(candidates)) if len(candidates) == 1 else ""
        if not name:
            missing[row.file_name] = None
        elif reason := _unusable(root / name):
            skipped[name] = Skip(name, reason)
        names.append(None if name in skipped or not name else name)
    if missing:
        raise DataError(
            f"{printable(str(table))}: {len(missing)} labels for missing files "
            f"({listing(list(missing))}): add the files or remove the rows"
        )
    return names, list(skipped.values())


def _relative(file_name: str, *, root: Path) -> str:
    return os.path.relpath(os.path.join(root, file_name), root).replace(os.sep, "/")


def _plain(name: str) -> str:
    """A form in which names agree that programs write differently: accents, slashes, spaces."""
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/"))


def _unusable(path: Path) -> str | None:
    try:
        return not_a_file(os.stat(path).st_mode)
    except OSError as error:
        return f"a dangling or looping link: {error.strerror}"


def _check_ends(clips: Sequence[Clip], lines: Sequence[int], *, table: Path) -> None:
    """Raise DataError if an event begins or ends behind its recording."""
    durations: dict[Path, float | None] = {}
    for clip, line in zip(clips, lines, strict=True):
        if clip.start_seconds == 0 and clip.end_seconds is None:
            continue
        if clip.path not in durations:
            durations[clip.path] = _duration_seconds(clip.path)
        duration = durations[clip.path]
        last = clip.start_seconds if clip.end_seconds is None else clip.end_seconds
        if duration is not None and last > duration + END_TOLERANCE_SECONDS:
            raise DataError(
                f"{printable(str(table))}:{line}: the event reaches to {last:g} s, but "
                f"{printable(clip.name)} ends at {duration:.3f} s: correct the times"
            )


def _duration_seconds(path: Path) -> float | None:
    """Length by the header; None where that cannot be read, which decoding will report."""
    try:
        return float(soundfile.info(os.fspath(path)).duration)
    except (OSError, soundfile.SoundFileError):
        return None


def _without_repeats(
    clips: Sequence[Clip], lines: Sequence[int], *, table: Path
) -> tuple[tuple[Clip, ...], int]:
    """Clips in order of name and time without equal rows, and how many of these there were."""
    first: dict[tuple[str, float, float | None], tuple[Clip, int]] = {}
    for clip, line in zip(clips, lines, strict=True):
        key = clip.name, clip.start_seconds, clip.end_seconds
        known, known_line = first.setdefault(key, (clip, line))
        if known != clip:
            what = "label" if known.label != clip.label else "source or fold"
            raise DataError(
                f"{printable(str(table))}:{line}: {printable(clip.name)} has another {what} than "
                f"in line {known_line}: keep one of the two rows"
            )
    kept = sorted((clip for clip, _ in first.values()), key=_order)
    return tuple(kept), len(clips) - len(kept)


def _order(clip: Clip) -> tuple[bytes, float, float]:
    end = float("inf") if clip.end_seconds is None else clip.end_seconds
    return os.fsencode(clip.name), clip.start_seconds, end


def _check_unlabelled(found: Found, named: Iterable[str | None], *, table: Path) -> tuple[str, ...]:
    """``metadata.csv`` must name every recording; any other table may be a selection."""
    unlabelled = sorted(set(found.names) - set(named), key=os.fsencode)
    if not unlabelled:
        return ()
    message = (
        f"{printable(str(table))}: {len(unlabelled)} files without labels ({listing(unlabelled)})"
    )
    if table.name == TABLE_NAME:
        raise DataError(f"{message}: add rows for them or move them away")
    return (f"{message}: they are left out",)


def _overlap_warnings(clips: Sequence[Clip], *, table: Path) -> tuple[str, ...]:
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
        f"{printable(str(table))}: {len(names)} times an event begins before one of another "
        f"class has ended ({listing(names)}): the same sound is taught as both",
    )
