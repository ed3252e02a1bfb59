"""Labels corrected by a table: the clips of a data set, with what somebody heard in them."""

import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stapes.clips import Clip, Dataset, listing, printable
from stapes.errors import DataError
from stapes.tables import is_utf8, number, plain_name, read_table, unquoted

LEAVE_OUT = "-"
"""The label of a clip that should not be used at all."""

TIME_TOLERANCE_SECONDS = 0.001
"""Spreadsheets round; two events of a file that begin and end this close are the same."""


class Correction(NamedTuple):
    """A row of a table of corrections; the label is None for a clip to leave out."""

    line: int
    file_name: str
    label: str | None
    start_seconds: float | None
    end_seconds: float | None


def apply_labels(dataset: Dataset, table: str | Path) -> Dataset:
    """A data set with the labels of a table in place of its own.

    Args:
        dataset: what to correct.
        table: a CSV with ``file_name`` and ``label``, and perhaps ``new_label``, which counts where
            it is filled. "-" leaves a clip out. A label may be a new class. Where a file holds
            several clips, ``start_seconds`` and ``end_seconds`` tell which. Other columns are not
            read.

    Returns:
        The data set, with a warning that tells what was changed. Clips that the table does not
        name keep their labels.

    Raises:
        DataError: a row that cannot be used, with its line.
    """
    path = Path(table)
    where = printable(str(path))
    places = _Places(dataset)
    chosen: dict[int, Correction] = {}
    for row in _corrections(path, where=where):
        i = places.find(row, where=f"{where}:{row.line}")
        earlier = chosen.setdefault(i, row)
        if earlier.label != row.label:
            raise DataError(
                f"{where}:{row.line}: {printable(dataset.clips[i].title)} has another label than "
                f"in line {earlier.line}: keep one of the two rows"
            )
    labels = {
        i: row.label
        for i, row in sorted(chosen.items())
        if row.label != _normal(dataset.clips[i].label)
    }
    clips = tuple(
        replace(clip, label=labels.get(i) or clip.label)
        for i, clip in enumerate(dataset.clips)
        if i not in labels or labels[i] is not None
    )
    told = _changes(dataset, labels, where=where)
    return replace(dataset, clips=clips, warnings=(*dataset.warnings, *told))


def _corrections(path: Path, *, where: str) -> list[Correction]:
    optional = ("new_label", "start_seconds", "end_seconds")
    rows = read_table(path, required=("file_name", "label"), optional=optional)
    return [_correction(cells, where=f"{where}:{line}", line=line) for line, cells in rows]


def _correction(cells: Mapping[str, str], *, where: str, line: int) -> Correction:
    if not cells["file_name"].strip():
        raise DataError(f"{where}: file_name is empty: fill it or remove the line")
    cell = cells["label"]
    if cells.get("new_label", "").strip():
        cell = cells["new_label"]
    label = None if cell.strip() == LEAVE_OUT else _normal(unquoted(cell))
    if label == "":
        raise DataError(f"{where}: label is empty: give one, or {LEAVE_OUT} to leave the clip out")
    if label is not None and not is_utf8(label):
        raise DataError(f"{where}: label {printable(label)} is not UTF-8: save as UTF-8")
    start, end = (number(cells, name, where=where) for name in ("start_seconds", "end_seconds"))
    return Correction(line, cells["file_name"], label, start, end)


def _normal(label: str) -> str:
    """A label as tables of labels have it."""
    return unicodedata.normalize("NFC", label.strip())


class _Places:
    """Where the clip of a row stands in a data set."""

    def __init__(self, dataset: Dataset) -> None:
        """Index the clips by name, exactly and as other programs may write it."""
        self._clips = dataset.clips
        self._exact, self._alike = defaultdict(list), defaultdict(list)
        for i, clip in enumerate(dataset.clips):
            self._exact[clip.name].append(i)
            self._alike[plain_name(clip.name)].append(i)

    def find(self, row: Correction, *, where: str) -> int:
        """Index of the clip that a row is about."""
        names = unquoted(row.file_name), row.file_name
        found = next((self._exact[n] for n in names if n in self._exact), None)
        if found is None:
            found = next((self._alike[p] for p in map(plain_name, names) if p in self._alike), [])
        name = printable(names[0])
        if not found:
            raise DataError(
                f"{where}: no clip {name} in the data: give the name as the data set has it, or "
                "remove the line"
            )
        matching = [i for i in found if self._matches(self._clips[i], row)]
        if len(matching) == 1:
            return matching[0]
        if not matching:
            times = listing([self._clips[i].title for i in found])
            raise DataError(f"{where}: no clip of {name} has these times (there are {times})")
        raise DataError(
            f"{where}: {len(matching)} clips are in {name}: tell which by start_seconds and "
            "end_seconds"
        )

    @staticmethod
    def _matches(clip: Clip, row: Correction) -> bool:
        """Whether the times that a row gives are those of a clip."""
        if row.start_seconds is None and row.end_seconds is None:
            return True
        start, end = row.start_seconds or 0.0, row.end_seconds
        if abs(clip.start_seconds - start) > TIME_TOLERANCE_SECONDS:
            return False
        if end is None or clip.end_seconds is None:
            return end is clip.end_seconds
        return abs(clip.end_seconds - end) <= TIME_TOLERANCE_SECONDS


def _changes(dataset: Dataset, labels: Mapping[int, str | None], *, where: str) -> tuple[str, ...]:
    """What corrections change, for people."""
    changed, left_out = [], []
    for i, label in labels.items():
        clip = dataset.clips[i]
        new = "" if label in dataset.classes else ", a new class"
        if label is None:
            left_out.append(clip.title)
        else:
            changed.append(f"{clip.title} ({clip.label} -> {label}{new})")
    told = ("labels changed", changed), ("clips left out", left_out)
    return tuple(f"{where}: {len(n)} {what}: {listing(n)}" for what, n in told if n)
