"""How recordings on a disk come to their labels: a table, folders, or the Kaggle set's forms."""

import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Set
from pathlib import Path

from stapes.annotations import TABLE_NAME, clips_of_selections, clips_of_table
from stapes.clips import Clip, Dataset, listing, printable
from stapes.errors import DataError
from stapes.folders import Found, find_recordings
from stapes.tables import is_utf8, read_table

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

Labelled = tuple[str, str | None]
"""A label and the part ("train", "test") it belongs to, if the data say."""


def read_layout(path: Path) -> Dataset:
    """Clips of a table, or of a folder in any of the known layouts; see ``load_dataset``."""
    if path.is_dir():
        table = path / TABLE_NAME
        return clips_of_table(table) if os.path.lexists(table) else _from_folder(path)
    if not os.path.lexists(path):
        raise DataError(f"{printable(str(path))}: no such folder or table of labels")
    if path.suffix.lower() not in {".csv", ".tsv", ".txt"} or not path.is_file():
        raise DataError(
            f"{printable(str(path))}: not a folder and not a .csv: give a folder of class folders, "
            f"or a table with the columns file_name,label"
        )
    return clips_of_table(path)


def _from_folder(root: Path) -> Dataset:
    found = find_recordings(root)
    layouts: tuple[Callable[[Path, Found], Dataset | None], ...] = (
        _kaggle_folders,
        _kaggle_flat,
        _parts,
        _selections,
    )
    for layout in layouts:
        if dataset := layout(root, found):
            return dataset
    return _class_folders(root, found)


def _selections(root: Path, found: Found) -> Dataset | None:
    """Recordings with label tracks or selection tables beside them; not those in class folders."""
    return clips_of_selections(root, found) if found.beside else None


def _class_folders(root: Path, found: Found) -> Dataset:
    """The label is the first folder's name; what lies deeper belongs to it too."""
    labelled = {name: (name.split("/")[0], None) for name in found.names if "/" in name}
    filled = {label for label, _ in labelled.values()}
    empty = [folder for folder in found.folders if folder not in filled]
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
    copies = {name for name in found.names if KAGGLE_NAME.fullmatch(name)}
    return _by_name(root, _without(found, copies), labelled)


def _without(found: Found, copies: Set[str]) -> Found:
    if not copies:
        return found
    names = tuple(name for name in found.names if name not in copies)
    ignored = {**found.ignored, "second copies of the set": len(copies)}
    return Found(names, found.folders, found.skipped, ignored)


def _kaggle_flat(root: Path, found: Found) -> Dataset | None:
    """The Kaggle set's flat form: labels and parts from its table, where there is one."""
    matches = {name: match[1] for name in found.names if (match := KAGGLE_NAME.fullmatch(name))}
    folders = (root, root / "cats_dogs", Path(os.path.abspath(root)).parent)
    table = next((f / KAGGLE_TABLE for f in folders if (f / KAGGLE_TABLE).is_file()), None)
    if not matches or (table is None and len(matches) < len(found.names)):
        return None
    labelled: dict[str, Labelled] = {name: (label, None) for name, label in matches.items()}
    warnings: tuple[str, ...] = ()
    if table is not None:
        by_file_name = {name.split("/")[-1]: name for name in matches}
        given, warnings = _read_kaggle_table(table, names=by_file_name)
        absent = [name for name in matches if name not in given]
        if absent:
            warnings += (
                f"{printable(str(table))} does not name {len(absent)} recordings "
                f"({listing(absent)}): they are labelled by name and are in neither of its parts",
            )
        labelled |= given
    return _by_name(root, found, labelled, warnings=warnings)


def _read_kaggle_table(
    table: Path, *, names: Mapping[str, str]
) -> tuple[dict[str, Labelled], tuple[str, ...]]:
    """Label and part of each file the table names, and warnings of files in both parts."""
    where = printable(str(table))
    labelled: dict[str, Labelled] = {}
    missing, in_both = [], []
    for line, cells in read_table(table, required=KAGGLE_COLUMNS):
        for column in KAGGLE_COLUMNS:
            part, label = column.split("_")
            file_name = cells[column].strip()
            if not file_name:
                continue  # the columns have different lengths
            if file_name not in names:
                missing.append(file_name)
                continue
            known = labelled.setdefault(names[file_name], (label, part))
            if known[0] != label:
                raise DataError(
                    f"{where}:{line}: {printable(file_name)} is named as {label} and as "
                    f"{known[0]}: keep one of the two"
                )
            if known[1] != part:
                in_both.append(file_name)
                labelled[names[file_name]] = (label, "train")
    if missing:
        raise DataError(
            f"{where}: {len(missing)} labels for missing files ({listing(missing)}): "
            f"download the set again, or remove these cells"
        )
    leak = f"{where}: THE SAME AUDIO IS IN TRAIN AND TEST and counts as train: {listing(in_both)}"
    return labelled, (leak,) if in_both else ()


def _by_name(
    root: Path, found: Found, labelled: Mapping[str, Labelled], *, warnings: tuple[str, ...] = ()
) -> Dataset:
    """A data set of whole files, each its own source."""
    unlabelled = [name for name in found.names if name not in labelled]
    if unlabelled:
        raise DataError(
            f"{printable(str(root))}: {len(unlabelled)} files without labels "
            f"({listing(unlabelled)}): move them into class folders or out of the way"
        )
    for label in sorted({label for label, _ in labelled.values()}):
        if not is_utf8(label):
            raise DataError(f"{printable(str(root / label))}: the name is not UTF-8: rename it")
    clips = tuple(
        Clip(root / name, name, unicodedata.normalize("NFC", label), source=name, part=part)
        for name, (label, part) in sorted(labelled.items(), key=lambda item: os.fsencode(item[0]))
    )
    return Dataset(root, clips, found.skipped, found.ignored, warnings)
