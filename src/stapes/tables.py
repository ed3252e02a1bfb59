"""Tables of labels, read whatever program wrote them; cells written so that none is a formula."""

import codecs
import csv
import difflib
import io
import math
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stapes.clips import listing, printable
from stapes.errors import DataError

REQUIRED = ("file_name", "label")
OPTIONAL = ("source", "fold", "start_seconds", "end_seconds")

SPLIT_COLUMNS = ("split", "subset", "partition")
"""What other programs call the parts of a set; who has such a column should know it is not read."""

OTHER_NAMES = {
    **dict.fromkeys(("start", "begin", "onset", "begin time (s)"), "start_seconds"),
    **dict.fromkeys(("end", "stop", "offset", "end time (s)"), "end_seconds"),
}
"""What other programs call columns that are read here."""

HEAD_BYTES = 1 << 16
"""Longer first lines than this are of no table."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters that make a spreadsheet run a cell (owasp.org, "CSV Injection")."""


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One row of a table of labels; see :class:`stapes.clips.Clip` for the fields.

    ``where`` it stands is ``file:line``.
    """

    where: str
    file_name: str
    label: str
    source: str | None
    fold: int | None
    start_seconds: float
    end_seconds: float | None


def quoted(text: str) -> str:
    """Text for a cell that no spreadsheet runs as a formula and :func:`unquoted` reads back.

    >>> quoted("=cmd"), quoted("'=cmd"), unquoted("'=cmd"), quoted("cat.wav")
    ("'=cmd", "''=cmd", '=cmd', 'cat.wav')
    """
    return "'" + text if text.startswith((*FORMULA_STARTS, "'")) else text


def unquoted(cell: str) -> str:
    """The text of a cell that :func:`quoted` made."""
    return cell[1:] if cell.startswith("'") and quoted(cell[1:]) == cell else cell


def is_utf8(text: str) -> bool:
    """Whether no byte of the text was undecodable when it was read."""
    return not any("\udc80" <= c <= "\udcff" for c in text)


def plain_name(name: str) -> str:
    """A form in which names agree that programs write differently: accents, slashes, spaces."""
    normal = unicodedata.normalize("NFC", name.strip().replace("\\", "/"))
    return os.path.normpath(normal).replace(os.sep, "/")


def read_labels(path: Path) -> tuple[list[LabelRow], list[str]]:
    """Read a table with the columns file_name, label and optionally those in ``OPTIONAL``.

    Returns:
        The rows, and which of ``SPLIT_COLUMNS`` the table has, which are not read.

    Raises:
        DataError: what cannot be read, as ``file:line: trouble``.
    """
    where = printable(str(path))
    rows = list(read_table(path, required=REQUIRED, optional=OPTIONAL))
    parts = [name for name in SPLIT_COLUMNS if rows and name in rows[0][1]]
    return [label_row(cells, where=f"{where}:{line}") for line, cells in rows], parts


def read_table(
    path: Path, *, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file as the line where each begins and its cells by column.

    Commas, semicolons and tabs, any line ends, UTF-8 or UTF-16, with or without a byte-order
    mark. Bytes that are not UTF-8 are kept as Python keeps them in file names.
    """
    where = printable(str(path))
    records = _records(read_text(path), where=where)
    line, header = next(records, (1, []))
    columns = [cell.strip().lower() for cell in header]
    _check_columns(columns, required=required, optional=optional, where=f"{where}:{line}")
    for line, cells in records:
        if len(cells) != len(columns):
            raise DataError(
                f"{where}:{line}: {len(cells)} cells, but the first line has {len(columns)} columns"
            )
        yield line, dict(zip(columns, cells, strict=True))


def read_text(path: Path, n_bytes: int = -1) -> str:
    """The text of a file, or of its first bytes, in UTF-8 or UTF-16.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(n_bytes)
    except OSError as error:
        raise DataError(f"{printable(str(path))}: cannot be read: {error.strerror}") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="surrogateescape")


def read_head(path: Path) -> str:
    """The first line of a file that may be no text at all; empty if it cannot be read."""
    try:
        return next(iter(read_text(path, HEAD_BYTES).splitlines()), "")
    except DataError:
        return ""


def _records(text: str, *, where: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are not blank, each with the line it begins on."""
    first_line = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            declared = line == 1 and cells[:1] == ["sep="]  # as Excel names the delimiter
            if any(cell.strip() for cell in cells) and not declared:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{where}:{line}: not a table: {error}") from error


def _check_columns(
    columns: list[str], *, required: Sequence[str], optional: Sequence[str], where: str
) -> None:
    known = [*required, *optional]
    for name in required:
        if name not in columns:
            near = difflib.get_close_matches(name, [c for c in columns if c not in known], 1)
            found = listing([column for column in columns if column]) or "nothing"
            fix = f"rename {printable(near[0])} to {name}" if near else f"add {name}"
            raise DataError(f"{where}: no column {name} (found {found}): {fix}")
    for name in columns:
        if name in known and columns.count(name) > 1:
            raise DataError(f"{where}: column {name} appears twice: keep one")
        # A misspelt column would silently undo what it was written for, such as the folds.
        near = difflib.get_close_matches(name, optional, 1, cutoff=0.8)
        near = near or [other for other in optional if other == OTHER_NAMES.get(name)]
        if near and name not in known and near[0] not in columns:
            raise DataError(f"{where}: unknown column {printable(name)}: did you mean {near[0]}?")


def label_row(cells: Mapping[str, str], *, where: str) -> LabelRow:
    """The row that cells by column are, checked.

    Args:
        cells: those of ``REQUIRED``, and any of ``OPTIONAL``.
        where: the row stands, as ``file:line``.

    Raises:
        DataError: an empty cell, or a number that is none or out of range.
    """
    for name in REQUIRED:
        if not cells[name].strip():
            raise DataError(f"{where}: {name} is empty: fill it or remove the line")
    if not is_utf8(cells["label"]):
        raise DataError(f"{where}: label {printable(cells['label'])} is not UTF-8: save as UTF-8")
    start, end, fold = (
        number(cells, n, where=where) for n in ("start_seconds", "end_seconds", "fold")
    )
    if fold is not None and not fold.is_integer():
        raise DataError(f"{where}: fold is {fold}: give a whole number")
    if end is not None and end <= (start or 0.0):
        raise DataError(
            f"{where}: end_seconds is {end:g}: it must lie after start_seconds, {start or 0.0:g}"
        )
    return LabelRow(
        where=where,
        file_name=cells["file_name"],
        label=unicodedata.normalize("NFC", unquoted(cells["label"].strip())),
        source=unquoted(cells.get("source", "").strip()) or None,
        fold=None if fold is None else int(fold),
        start_seconds=start or 0.0,
        end_seconds=end,
    )


def number(cells: Mapping[str, str], name: str, *, where: str) -> float | None:
    """A finite number from 0 up, with a decimal point or comma; None where the cell is empty."""
    text = cells.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or "_" in text:
        raise DataError(f"{where}: {name} is {printable(text)!r}: give a number from 0 up")
    return value
