"""How recordings on a disk come to their labels: a table, folders, or the Kaggle set's forms."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import soundfile

from stapes.clips import Clip, Dataset, Skip, listing, printable
from stapes.errors import DataError
from stapes.folders import Found, find_recordings, not_a_file
from stapes.tables import LabelRow, read_labels, read_table

TABLE_NAME = "metadata.csv"

PARTS = {"train": "train", "val": "train", "valid": "train", "validation": "train", "test": "test"}
"""Folders that hold a part of a set, each with its class folders; validation is for training."""

KAGGLE_FOLDERS = {
    "train/cat": ("cat", "train"),
    "train/dog": ("dog", "train"),
    "test/cats": ("cat", "test"),
    "test/test": ("dog", "test"),  # sic: the set's test folder of dogs is called "test"
}
KAGGLE_TABLE = "train_test_split.csv"
KAGGLE_COLUMNS = ("train_cat", "test_cat", "train_dog", "test_dog")
KAGGLE_NAME = re.compile(r"(?:cats_dogs/)*(cat|dog)_(?:barking_)?\d+\.wav")
KAGGLE_PATH = re.compile(r"(?:cats_dogs/)*(\w+/\w+)/[^/]+")

END_TOLERANCE_SECONDS = 0.01
"""By how much an event may end behind its recording: the rounding of annotation programs."""

Labelled = tuple[str, str | None]
"""A label and the part ("train", "test") it belongs to, if the data say."""


def read_layout(path: Path) -> Dataset:
    """Clips of a table, or of a folder in any of the known layouts; see ``load_dataset``."""
    if path.is_dir():
        table = path / TABLE_NAME
        return _from_table(table) if os.path.lexists(table) else _from_folder(path)
    if not os.path.lexists(path):
        raise DataError(f"{printable(str(path))}: no such folder or table of labels")
    if path.suffix.lower() not in {".csv", ".tsv", ".txt"} or not path.is_file():
        raise DataError(
            f"{printable(str(path))}: not a folder and not a .csv: give a folder of class folders, "
            f"or a table with the columns file_name,label"
        )
    return _from_table(path)


def _from_folder(root: Path) -> Dataset:
    found = find_recordings(root)
    layouts: tuple[Callable[[Path, Found], Dataset | None], ...] = (
        _kaggle_folders,
        _kaggle_flat,
        _parts,
    )
    for layout in layouts:
        if dataset := layout(root, found):
            return dataset
    return _class_folders(root, found)


def _class_folders(root: Path, found: Found) -> Dataset:
    """The label is the first folder's name; what lies deeper belongs to it too."""
    labelled = {name: (name.split("/")[0], None) for name in found.names if "/" in name}
    empty = [name for name in found.folders if (name, None) not in set(labelled.values())]
    if empty and labelled:
        raise DataError(
            f"{printable(str(root))}: {len(empty)} class folder(s) without recordings "
            f"({listing(empty)}): fill or remove them"
        )
    return _by_name(root, found, labelled)


def _parts(root: Path, found: Found) -> Dataset | None:
    """Class folders inside the folders train, test and perhaps validation."""
    if "train" not in found.folders or not set(found.folders) <= PARTS.keys():
        return None
    split = {name: name.split("/") for name in found.names}
    labelled = {name: (p[1], PARTS[p[0]]) for name, p in split.items() if len(p) > 2}
    trained = {label for label, part in labelled.values() if part == "train"}
    unknown = sorted({label for label, _ in labelled.values()} - trained)
    if unknown:
        raise DataError(
            f"{printable(str(root))}: no class folder in train for {listing(unknown)}: "
            f"name the class folders alike in train and test"
        )
    return _by_name(root, found, labelled)


def _kaggle_folders(root: Path, found: Found) -> Dataset | None:
    """The Kaggle set's folder form; a flat copy beside it is not read a second time."""
    paths = {name: match[1] for name in found.names if (match := KAGGLE_PATH.fullmatch(name))}
    labelled = {name: KAGGLE_FOLDERS[p] for name, p in paths.items() if p in KAGGLE_FOLDERS}
    if not KAGGLE_FOLDERS.keys() <= set(paths.values()):
        return None
    copies = [name for name in found.names if KAGGLE_NAME.fullmatch(name)]
    return _by_name(root, _without(found, copies), dict(labelled))


def _without(found: Found, copies: Sequence[str]) -> Found:
    if not copies:
        return found
    names = tuple(name for name in found.names if name not in set(copies))
    ignored = {**found.ignored, "second copies of the set": len(copies)}
    return Found(names, found.folders, found.skipped, ignored)


def _kaggle_flat(root: Path, found: Found) -> Dataset | None:
    """The Kaggle set's flat form: labels and parts from its table, where there is one."""
    matches = {name: match[1] for name in found.names if (match := KAGGLE_NAME.fullmatch(name))}
    if not matches:
        return None
    folders = (root, root / "cats_dogs", root.parent)
    table = next((f / KAGGLE_TABLE for f in folders if (f / KAGGLE_TABLE).is_file()), None)
    labelled: dict[str, Labelled] = {name: (label, None) for name, label in matches.items()}
    warnings = ()
    if table is not None:
        given = _read_kaggle_table(table, names={name.split("/")[-1]: name for name in matches})
        absent = [name for name in matches if name not in given]
        if absent:
            warnings = (
                f"{printable(str(table))} does not name {len(absent)} recordings "
                f"({listing(absent)}): they are labelled by name and are in neither of its parts",
            )
        labelled |= given
    return _by_name(root, found, labelled, warnings=warnings)


def _read_kaggle_table(table: Path, *, names: dict[str, str]) -> dict[str, Labelled]:
    labelled: dict[str, Labelled] = {}
    missing = []
    for line, cells in read_table(table, required=KAGGLE_COLUMNS):
        for column in KAGGLE_COLUMNS:
            part, label = column.split("_")
            file_name = cells[column].strip()
            if file_name and file_name not in names:
                missing.append(file_name)
            elif file_name and labelled.setdefault(names[file_name], (label, part)) != (
                label,
                part,
            ):
                raise DataError(
                    f"{table}:{line}: {printable(file_name)} is in {column} and in another column"
                )
    if missing:
        raise DataError(
            f"{table}: {len(missing)} labels for missing files ({listing(missing)}): "
            f"download the set again, or remove these cells"
        )
    return labelled


def _by_name(
    root: Path, found: Found, labelled: dict[str, Labelled], *, warnings: tuple[str, ...] = ()
) -> Dataset:
    """A data set of whole files, each its own source."""
    unlabelled = [name for name in found.names if name not in labelled]
    if unlabelled:
        raise DataError(
            f"{printable(str(root))}: {len(unlabelled)} files without labels "
            f"({listing(unlabelled)}): move them into class folders or out of the way"
        )
    clips = tuple(
        Clip(root / name, name, label, source=name, part=part)
        for name, (label, part) in sorted(labelled.items(), key=lambda item: os.fsencode(item[0]))
    )
    return Dataset(root, clips, found.skipped, found.ignored, warnings)


def _from_table(table: Path) -> Dataset:
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
