"""Events that somebody marked in Audacity or Raven: label tracks and selection tables, as rows.

Audacity: a line for each label, "start TAB end TAB label" in seconds, and after a label of some
frequencies a line that begins with a backslash
(https://manual.audacityteam.org/man/importing_and_exporting_labels.html). Raven: a table with the
columns "Begin Time (s)" and "End Time (s)", a column of the user's for labels, and for sounds of
several files "Begin File" or "Begin Path", and "File Offset (s)"
(as https://rdrr.io/cran/Rraven/man/imp_raven.html reads them).
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from stapes.clips import listing, printable
from stapes.errors import DataError
from stapes.tables import LabelRow, label_row, read_head, read_table, read_text

SUFFIXES = frozenset((".txt", ".tsv", ".csv"))

BEGIN, END, OFFSET = "begin time (s)", "end time (s)", "file offset (s)"

FILES = ("begin file", "begin path")
"""Columns of Raven's, of which the first one there names the file, or where it was."""

LABELS = ("annotation", "label", "species", "class", "call type", "common name")
"""Columns of Raven's, of which the first one there holds the labels."""

_TRACK = re.compile(r"\s*\d+(?:[.,]\d+)?\t\d+(?:[.,]\d+)?(?:\t.*)?")


def is_selection_table(path: Path) -> bool:
    """Whether a file is a selection table of Raven's, by its first line."""
    return {BEGIN, END} <= {cell.strip().lower() for cell in re.split("[\t,;]", read_head(path))}


def is_label_track(path: Path) -> bool:
    """Whether a file is a label track of Audacity's, by its first line."""
    return _TRACK.fullmatch(read_head(path)) is not None


def tables_of(root: Path, file_names: Sequence[str], recordings: Sequence[str]) -> list[Path]:
    """The label tracks and selection tables among the files of a folder.

    Args:
        root: the folder.
        file_names: names of its files.
        recordings: names of its recordings; a label track is of the one that it is called like.
    """
    near = [
        name
        for name in file_names
        if Path(name).suffix.lower() in SUFFIXES and (root / name).is_file()
    ]
    return [
        root / name
        for name in near
        if is_selection_table(root / name)
        or (_named_like(name, recordings) and is_label_track(root / name))
    ]


def read_selections(path: Path, recordings: Sequence[str]) -> list[LabelRow]:
    """Events of one label track or selection table.

    Args:
        path: the table.
        recordings: names of the recordings beside it; it is of the one that it is called like,
            such as ``pond.txt`` or ``pond.Table.1.selections.txt`` of ``pond.wav``, unless it
            names its files itself.

    Raises:
        DataError: what cannot be read, as ``file:line: trouble``.
    """
    found = _raven(path, recordings) if is_selection_table(path) else _audacity(path, recordings)
    rows = dict[tuple[object, ...], LabelRow]()
    for where, file_name, label, start, end in found:
        cells = {"file_name": file_name, "label": label}
        row = label_row(cells | {"start_seconds": start, "end_seconds": end}, where=where)
        rows.setdefault((row.file_name, row.label, row.start_seconds, row.end_seconds), row)
    return list(rows.values())  # Raven has a row for every view of a selection


def _audacity(path: Path, recordings: Sequence[str]) -> Iterator[tuple[str, str, str, str, str]]:
    """Where each label stands, its file, itself, its start and its end."""
    recording = _recording_of(path, recordings)
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        where = f"{printable(str(path))}:{line}"
        if not text.strip() or text.startswith("\\"):
            continue
        if not _TRACK.fullmatch(text):
            raise DataError(f"{where}: not a label of Audacity's: give start, end and label")
        start, end, *label = text.split("\t", 2)
        if start == end:
            raise DataError(
                f"{where}: a point, not a stretch of time: give it an end, or remove it"
            )
        yield where, recording, "".join(label), start, end


def _raven(path: Path, recordings: Sequence[str]) -> Iterator[tuple[str, str, str, str, str]]:
    """Where each selection stands, its file, its label, its start and its end."""
    rows = list(read_table(path, required=(BEGIN, END)))
    if not rows:
        return
    columns = rows[0][1].keys()
    label = next((name for name in LABELS if name in columns), None)
    if label is None:
        found = listing([name for name in columns if not name.endswith(")")])
        raise DataError(
            f"{printable(str(path))}:1: no column of labels (found {found}): call it Annotation"
        )
    file = next((name for name in FILES if name in columns), None)
    if file and len({cells[file] for _, cells in rows}) > 1 and OFFSET not in columns:
        raise DataError(
            f"{printable(str(path))}:1: selections of several files without the column File Offset"
            " (s): add it in Raven, for its times go on from file to file"
        )
    for line, cells in rows:
        where = f"{printable(str(path))}:{line}"
        name = re.split(r"[/\\]", cells[file])[-1] if file else _recording_of(path, recordings)
        start, end = cells[BEGIN], cells[END]
        if file and OFFSET in columns:
            start, end = _in_file(cells, where=where)
        yield where, name, cells[label], start, end


def _in_file(cells: dict[str, str], *, where: str) -> tuple[str, str]:
    """Start and end within the file in which a selection begins."""
    try:
        begin, end, offset = (float(cells[key].replace(",", ".")) for key in (BEGIN, END, OFFSET))
    except ValueError:
        raise DataError(f"{where}: a time that is no number: export the table again") from None
    return f"{offset:.6f}", f"{offset + end - begin:.6f}"


def _recording_of(path: Path, recordings: Sequence[str]) -> str:
    """The one recording that a table is called like."""
    found = _named_like(path.name, recordings)
    if len(found) == 1:
        return found[0]
    trouble = (
        f"several recordings are called like it ({listing(found)})"
        if found
        else ("no recording beside it is called like it")
    )
    raise DataError(f"{printable(str(path))}: {trouble}: name it like its recording")


def _named_like(name: str, recordings: Sequence[str]) -> list[str]:
    """The recordings whose name, with or without its end, is most of a table's name."""
    while "." in name:
        name = name.rpartition(".")[0]
        found = [one for one in recordings if name in (one, one.rpartition(".")[0])]
        if found:
            return found
    return []
