"""A run folder: one writer at a time, nothing overwritten unasked, nothing half written."""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from stapes import checkpoint
from stapes.errors import StapesError, UsageError
from stapes.files import remove_orphans, write_trouble

STATE_FILE = "state.safetensors"
METRICS_FILE = "metrics.json"
BUDGET_FILE = "budget.json"
HISTORY_FILE = "history.jsonl"
REPORT_FILE = "report.html"
STATE_SUFFIX = ".state.safetensors"
TRAININGS_FOLDER = "trainings"
DOUBTS_FILE = "suspicious.csv"
LABELS_FOLDER = "audacity"
LOCK_FILE = ".lock"

FILES = (
    *(STATE_FILE, METRICS_FILE, BUDGET_FILE, HISTORY_FILE, REPORT_FILE, checkpoint.MODEL_FILE),
    *(DOUBTS_FILE, LABELS_FOLDER, TRAININGS_FOLDER),
)


@contextmanager
def run_folder(
    out: str | Path, *, resume: bool | None = False, overwrite: bool = False
) -> Iterator[Path]:
    """A folder for one run, locked against a second run as long as the block lasts.

    Args:
        out: the folder; made if it is missing.
        resume: go on with what an earlier run left there; None if the command cannot.
        overwrite: do not mind what an earlier run left there.

    Raises:
        UsageError: both asked for, or neither and the folder holds a run.
        StapesError: another run is at work there, or it cannot be written.
    """
    folder = Path(out)
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other: give one of them")
    with _locked(folder):
        for place in (folder, folder / TRAININGS_FOLDER):
            remove_orphans(place)
        refuse_taken(folder, resume=resume, overwrite=overwrite)
        yield folder


def refuse_taken(folder: Path, *, resume: bool | None, overwrite: bool) -> None:
    """Raise UsageError if a folder holds a run and nobody said what to do with it."""
    present = [name for name in FILES if (folder / name).exists()]
    if present and not (resume or overwrite):
        go_on = "" if resume is None else " --resume to go on,"
        raise UsageError(
            f"{folder} already holds {', '.join(present)}: give another --out,{go_on} or"
            " --overwrite"
        )


def begin_anew(folder: Path) -> None:
    """Throw away what an earlier run would go on from; its results stay until there are new."""
    forget_trainings(folder)
    for name in (STATE_FILE, BUDGET_FILE):
        (folder / name).unlink(missing_ok=True)


def clear_lists(folder: Path) -> None:
    """Throw away those results of an earlier run that new ones need not take the place of."""
    (folder / HISTORY_FILE).unlink(missing_ok=True)
    for table in (folder / LABELS_FOLDER).glob("[0-9][0-9][0-9]* *.txt"):  # not the user's own
        table.unlink()


def refuse_labels_of(out: str | Path, labels: str | Path | None) -> None:
    """Raise UsageError if a table of labels that is read lies in a run that is to be replaced."""
    if labels is not None and Path(out).resolve() in Path(labels).resolve().parents:
        raise UsageError(
            f"{labels} lies in {out}, which is to be overwritten: move it, or give another --out"
        )


def training_state(folder: Path, name: str) -> Path:
    """Where one of many trainings of a run saves its state."""
    return folder / TRAININGS_FOLDER / f"{re.sub(r'[^a-z0-9]+', '-', name)}{STATE_SUFFIX}"


def check_resumable(folder: Path, *, of: str) -> None:
    """Raise UsageError if the run that is there is of another command, or has no more to do.

    A ``train`` that is complete may be resumed: it ends like before.

    Args:
        folder: the run.
        of: the command that is to go on, "train" or "crossval".
    """
    found = _command_of(folder)
    if found not in (None, of):
        raise UsageError(
            f"{folder}: its run is of stapes {found}, which {of} cannot resume; give another --out,"
            " or --overwrite"
        )
    complete = (folder / METRICS_FILE).exists() and not (folder / TRAININGS_FOLDER).exists()
    if of == "crossval" and complete:
        raise UsageError(f"{folder}: its run is complete, there is nothing to resume; --overwrite")


def _command_of(folder: Path) -> str | None:
    """The command that began a run, or wrote one; None if nothing tells."""
    for name, command in {STATE_FILE: "train", TRAININGS_FOLDER: "crossval"}.items():
        if (folder / name).exists():
            return command
    with suppress(OSError, ValueError, TypeError, KeyError):
        return str(json.loads((folder / METRICS_FILE).read_text())["kind"])
    return None


def forget_trainings(folder: Path) -> None:
    """Throw away the states of many trainings; what else lies beside them stays."""
    place = folder / TRAININGS_FOLDER
    for state in place.glob(f"*{STATE_SUFFIX}"):
        state.unlink()
    with suppress(OSError):
        place.rmdir()


def refuse_model_of(out: str | Path, *models: str | Path) -> None:
    """Raise UsageError if a run in ``out`` would take the place of a model that is read."""
    for model in models:
        file = Path(model) / checkpoint.MODEL_FILE if Path(model).is_dir() else Path(model)
        folders = file.parent.resolve(), file.resolve().parent  # of a link, and of what it leads to
        if file.exists() and Path(out).resolve() in folders:
            raise UsageError(f"{out} is where the model {model} lies: give a place elsewhere")


def refuse_inside(out: str | Path, *data: str | Path) -> None:
    """Raise UsageError if ``out`` is one of the places that are read, or lies inside one."""
    written = Path(out).resolve()
    for place in data:
        read = Path(place).resolve()
        if read in (written, *written.parents):
            relation = "is" if written == read else "lies inside"
            raise UsageError(f"{out} {relation} {place}, which is read: give a place elsewhere")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK_FILE, "a+")  # noqa: SIM115 (closed below, kept while locked)
    except OSError as error:
        raise StapesError(
            f"{folder}: cannot be written ({error.strerror}); choose another"
        ) from error
    with lock:
        _lock(lock, folder)
        try:
            _sign(lock, folder)
            yield
        finally:
            (folder / LOCK_FILE).unlink(missing_ok=True)
            if made:
                with suppress(OSError):  # but for a folder with something in it
                    folder.rmdir()


def _lock(lock: IO[str], folder: Path) -> None:
    """Lock the file, which the system frees even if this process is killed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        raise StapesError(f"{folder}: process {owner} is training there; wait or end it") from error
    except OSError as error:
        raise StapesError(
            f"{folder}: its file system has no locks ({error.strerror}); choose another"
        ) from error


def _sign(lock: IO[str], folder: Path) -> None:
    """Say whose lock it is."""
    owner = str(os.getpid())
    try:
        os.ftruncate(lock.fileno(), 0)
        os.write(lock.fileno(), owner.encode())
    except OSError as error:
        raise StapesError(write_trouble(folder / LOCK_FILE, error, n_bytes=len(owner))) from error
