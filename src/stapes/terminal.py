"""What a person sees in the terminal: a progress bar, tables, and answers line by line."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stapes.clips import printable
from stapes.files import replacing, write_json
from stapes.progress import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from stapes.inference import Prediction

SKIPPED = 3
"""Exit code of a command that is done but had to leave some inputs out."""

N_FINDINGS = 20
"""Findings of an audit that are printed; all of them are in its JSON."""

USUAL_COLUMNS = 80

WIDE_COLUMNS = 70
"""A narrower terminal shows how much is done and how long it takes, and no more."""

N_NAMED = 4
"""Classes that one line names."""


def say(line: str) -> None:
    """One line on stderr; what names hold besides printable text is escaped."""
    with suppress(OSError):  # a full disk behind stderr changes no exit code
        print(printable(line), file=sys.stderr)


def open_closed() -> None:
    """Nothing in the place of a closed input or output, or the next file would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (open to the end)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


@contextmanager
def progress_bar(*, shown: bool = True) -> Iterator[Progress]:
    """A progress bar on a terminal, nothing elsewhere.

    Args:
        shown: False where what is printed tells by itself how far it is.

    Yields:
        A function to tell what is being done, how much is done, of how much, and how it goes.
    """
    console = _console(stderr=True)
    if not (shown and console.is_terminal):
        yield silent
        return
    from rich import progress
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    done, left = MofNCompleteColumn(), (TextColumn("left"), TimeRemainingColumn())
    note = TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True))
    columns: list[ProgressColumn] = [TextColumn("{task.description}"), done, *left]
    if console.width >= WIDE_COLUMNS:
        columns = [columns[0], BarColumn(bar_width=12), done, TimeElapsedColumn(), *left, note]
    with progress.Progress(*columns, console=console, expand=True) as bar:
        tasks: dict[str, Any] = {}

        def report(name: str, done: int, total: int, note: str) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total, note="")
            bar.update(tasks[name], completed=done, total=total, note=note)

        yield report


def print_metrics(metrics: Mapping[str, Any], *, title: str) -> None:
    """The headline, what it is worth beside simpler methods, and the recall of every class."""
    from rich.table import Table

    clips, segments = metrics["clips"], metrics["segments"]
    title = f"{printable(title)}: {metrics['parameters']:,} parameters"
    table = Table("", "clips", "segments", title=title)
    rows = {"right": "accuracy", "balanced": "balanced_accuracy", "ROC area": "roc_area"}
    for name, key in rows.items():
        table.add_row(name, f"{clips[key]:.3f}", f"{segments[key]:.3f}")
    table.add_row("95 % interval", _interval(clips), _interval(segments))
    table.add_row("majority vote", f"{clips['majority_accuracy']:.3f}", "")
    for label, recall in clips["recall"].items():
        name = f"recall of {printable(label)}"
        table.add_row(name, f"{recall:.3f}", f"{segments['recall'][label]:.3f}")
    table.add_row("number", f"{clips['n']:,}", f"{segments['n']:,}")
    table.add_section()
    for row in metrics.get("baselines", []):
        table.add_row(row["name"], f"{row['clips']['accuracy']:.3f}", "")
    _print(table)
    for line in _verdict(metrics):
        _print(line)


def _interval(part: Mapping[str, Any]) -> str:
    low, high = part["interval"]
    return f"{low:.3f} to {high:.3f}"


def _verdict(metrics: Mapping[str, Any]) -> Iterator["str | Text"]:
    """What else must be known before the headline is believed, a line each."""
    from rich.text import Text

    from stapes import evaluation
    from stapes.pages.wording import chance

    if budget := metrics.get("budget"):
        yield f"{budget['words']}."
    if by_file := metrics.get("by_file"):
        leaking, honest = by_file["clips"]["accuracy"], metrics["clips"]["accuracy"]
        beyond = "" if evaluation.surely(by_file["difference"]) else " (within chance)"
        yield f"A split by file says {leaking:.3f} of clips, an honest one {honest:.3f}{beyond}."
    for row in metrics.get("baselines", []):
        if not row["difference"]["beaten"]:
            ahead = evaluation.surely(row["difference"]) < 0
            than = f"{'Worse' if ahead else 'Not clearly better'} than {row['name']}"
            style = "bold red" if ahead or "loudness" in row["name"] else "yellow"
            yield Text(f"{than}: {row['clips']['accuracy']:.3f}.", style=style)
    if known := metrics.get("calibration"):
        before, after = known["error_before"], known["error_after"]
        yield (
            f"Calibration error {after:.3f} ({before:.3f} before calibration; chance alone makes"
            f" up to {known['error_by_chance']:.3f})."
        )
    accepting = metrics.get("acceptance", {})
    thresholds = accepting.get("thresholds", {})
    if off := [printable(name) for name, threshold in thresholds.items() if threshold == 0]:
        named = [*off[:N_NAMED], *([f"{len(off) - N_NAMED} more"] if len(off) > N_NAMED else [])]
        called = f"called {' or '.join(named)} " if len(off) < len(thresholds) else ""
        few = f"fewer than {accepting['sources_needed']} sources give no threshold"
        yield f"Nothing {called}is flagged as none of the classes: {few}."
    if foreign := accepting.get("foreign"):
        share, n = foreign["called_after"], foreign["n"]
        yield f"Of {n:,} foreign sounds {share:.3f} are taken for a class (all without thresholds)."
    if against := metrics.get("against"):
        low, high = against["difference"]["interval"]
        yield (
            f"Against {against['model']}: {against['difference']['accuracy']:+.3f} of clips"
            f" ({low:+.3f} to {high:+.3f}, {chance(against['difference']['p_value'])})."
        )


def print_audit(results: Mapping[str, Any]) -> None:
    """What an audit found, in words those findings that raise most concerns."""
    from stapes.pages.verdict import CONCERNS

    n_files, n_sources = results["n_files"], results["n_sources"]
    _print(f"{n_files:,} recordings from {n_sources:,} sources")
    for kind, count in results["counts"].items():
        _print(f"{count:>6,}  {CONCERNS.get(kind, kind)}")
    findings = sorted(results["findings"], key=lambda finding: -len(finding["concerns"]))
    for finding in findings[:N_FINDINGS]:
        _print(printable(finding["words"]))
    if (more := len(results["findings"]) - N_FINDINGS) > 0:
        _print(f"and {more:,} more; --json FILE writes all of them")


def print_protocols(results: Mapping[str, Any]) -> None:
    """The notebook's protocol beside the honest one, as a table on stdout."""
    from rich.table import Table

    names = {
        "published": "the notebook says of itself",
        "notebook": "its protocol, run here",
        "notebook_blind": "the same networks, labels hidden from the normalisation",
        "split_by_file": "segments normalised by themselves, split by file",
        "honest": "the same, split by source: honest",
    }
    table = Table("protocol", "segments right", "clips right", title="The same network and steps")
    for key, name in names.items():
        row = results[key]
        shares = [
            row[p] if key == "published" else row[p]["accuracy"] for p in ("segments", "clips")
        ]
        table.add_row(name, *(f"{share:.3f}" for share in shares))
    table.add_section()
    for name, meaning in {"gap": "notebook", "leak": "split by file"}.items():
        shares = [f"{results[name][part]:+.3f}" for part in ("segments", "clips")]
        table.add_row(f"{name}: {meaning} less honest", *shares)
    _print(table)


def _print(what: "str | Table | Text") -> None:
    """A line or a table on stdout; square brackets and colons in names are only that."""
    _console().print(what, soft_wrap=isinstance(what, str))


def _console(*, stderr: bool = False) -> "Console":
    """Where people read; one that says it has no columns is taken for a usual one."""
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    console.width = console.width or USUAL_COLUMNS
    return console


def table_lines(
    predictions: Iterable["Prediction"], _classes: Sequence[str], *, segments: bool = False
) -> Iterator[str]:
    """Aligned columns for people; with ``segments`` a line for each of them below."""
    yield f"{'label':<16} {'probability':>11}  {'seconds':>8}  recording\n"
    for p in predictions:
        flags = f"  ({', '.join(p.flags)})" if p.flags else ""
        share = f"{p.probability:>11.3f}  {p.duration_seconds:>8.2f}"
        yield f"{_padded(p.label, 16)} {share}  {printable(p.path)}{flags}\n"
        yield from (f"{'':<16} {printable(note)}\n" for note in p.notes)
        if segments:
            names = list(p.probabilities)
            for start, shares in zip(p.start_seconds, p.segment_probabilities, strict=True):
                best = int(shares.argmax())
                yield f"  {_padded(names[best], 14)} {shares[best]:>11.3f}  {start:>8.2f}\n"


def _padded(text: str, n_columns: int) -> str:
    """Text and blanks behind it; letters take no column, one or two."""
    from rich.cells import cell_len

    shown = printable(text)
    return shown + " " * (n_columns - cell_len(shown))


def jsonl_lines(
    predictions: Iterable["Prediction"], _classes: Sequence[str], *, segments: bool = False
) -> Iterator[str]:
    """One JSON object a line for each recording."""
    for prediction in predictions:
        yield json.dumps(prediction.as_dict(segments=segments)) + "\n"


def csv_lines(
    predictions: Iterable["Prediction"], classes: Sequence[str], *, segments: bool = False
) -> Iterator[str]:
    """A header, then one line a recording, or one a segment if asked for."""
    time = ["start_seconds"] if segments else []
    before, behind = ["path", *time, "label", "probability"], ["duration_seconds", "flags"]
    taken = {*before, *behind}
    names = [f"probability of {name}" if name in taken else name for name in classes]
    yield _row([*before, *names, *behind])
    for prediction in predictions:
        tail = [f"{prediction.duration_seconds:.3f}", " ".join(prediction.flags)]
        if not segments:
            shares = list(prediction.probabilities.values())
            yield _row([prediction.path, prediction.label, *_answer(shares), *tail])
            continue
        rows = prediction.segment_probabilities.tolist()
        for start, shares in zip(prediction.start_seconds, rows, strict=True):
            label = classes[shares.index(max(shares))]
            yield _row([prediction.path, f"{start:.6f}", label, *_answer(shares), *tail])


def _answer(shares: Sequence[float]) -> list[str]:
    return [f"{share:.4f}" for share in (max(shares), *shares)]


def _row(cells: Sequence[str]) -> str:
    from stapes.tables import quoted

    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([quoted(cell) for cell in cells])
    return line.getvalue()


WRITERS = {"table": table_lines, "csv": csv_lines, "jsonl": jsonl_lines}
"""How answers are written, by the name of the format."""


def write_lines(lines: Iterable[str], out: Path | None) -> None:
    """Print lines as they come, or put them into a file that appears when it is whole."""
    if out is None:
        for line in lines:
            sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape"))
            sys.stdout.flush()
        return
    with replacing(out) as file:
        for line in lines:
            file.write(line.encode("utf-8", "surrogateescape"))


def save_json(metrics: dict[str, Any], path: Path | None) -> None:
    """Write results to a file, if one was asked for."""
    if path is not None:
        write_json(path, metrics)


def tell_run(out: Path | None) -> None:
    """Where the report is, if one was asked for."""
    if out is not None:
        say(f"model and report are in {out}")


def finish(metrics: dict[str, Any]) -> None:
    """Tell what was left out, and end with the exit code that says so."""
    for warning in metrics.get("warnings", []):
        say(f"warning: {warning}")
    tell_skipped([(skip["name"], skip["reason"]) for skip in metrics.get("skipped", [])])


def tell_skipped(skipped: list[tuple[str, str]]) -> None:
    """Name what was left out, and end with the exit code that says so."""
    for name, reason in skipped:
        say(f"skipped {name}: {reason}")
    if skipped:
        raise typer.Exit(SKIPPED)
