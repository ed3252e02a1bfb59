"""What the commands take: their options, and checks of paths before any work is done."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stapes.config import TrainingConfig
from stapes.errors import StapesError, UsageError
from stapes.files import remove_orphans
from stapes.folders import AUDIO_SUFFIXES

Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="Folder of class folders, or CSV with labels.")
]
OwnData = Annotated[
    Path | None, typer.Argument(metavar="DATA", help="Recordings; synthesised if none.")
]
Paths = Annotated[  # those that cannot be read are skipped, and cost no others
    list[Path], typer.Argument(metavar="PATH...", help="Files and folders.", readable=False)
]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Model file, run folder or name.")]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write results here, also over earlier ones."),
]
ByFile = Annotated[
    bool, typer.Option("--by-file/--no-by-file", help="See what a split by file would say, too.")
]
PRESET = typer.Option(help="Name of the network: classic, small or large.")
Preset = Annotated[str, PRESET]
Budget = Annotated[
    str | None,
    typer.Option(help="A time such as 60s or 5m, which chooses the preset and the epochs."),
]
Epochs = Annotated[
    int | None, typer.Option(help="Epochs of 100 steps each; more classes take more by themselves.")
]
Batch = Annotated[int | None, typer.Option("--batch-size", help="Segments a step.")]
Rate = Annotated[float | None, typer.Option("--learning-rate", help="Peak learning rate.")]
Validation = Annotated[
    float | None, typer.Option("--validation-share", help="Share of clips that choose the epoch.")
]
Patience = Annotated[int | None, typer.Option(help="Epochs to wait for a better one; 0: all.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(help="Processor threads.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run in OUT ended.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Archive = Annotated[str | None, typer.Option(help="Zip file or address instead of the public one.")]
Run = Annotated[Path | None, typer.Option(help="Run folder to write, with a report.")]
Labels = Annotated[Path | None, typer.Option(help="Table of corrected labels.")]
LeakChoice = Annotated[
    Literal["refuse", "regroup", "allow"],
    typer.Option("--leaks", help="What to do with recordings that are learnt from and judged."),
]
Foreign = Annotated[
    list[Path] | None, typer.Option(help="Folder of sounds of no class; may be given often.")
]


EXTRA_OF = {
    "jinja2": "train",
    "kagglehub": "fetch",
    "markupsafe": "train",
    "matplotlib": "train",
    "scipy": "train",
    "sklearn": "train",
    "threadpoolctl": "train",
    "torch": "torch",
}
"""What to install for the modules that a base install lacks."""

SETTINGS = ("labels", "foreign", *(f.name for f in fields(TrainingConfig) if f.name != "seed"))
"""Options that keep the defaults of the library unless they are given."""


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the user gave, of all options of a command."""
    return {name: options[name] for name in SETTINGS if options.get(name) is not None}


def hop_of(hop: str | None) -> float | Literal["dense"] | None:
    """Seconds, or the word for one answer every few milliseconds."""
    if hop is None:
        return None
    if hop == "dense":
        return "dense"
    try:
        return float(hop)
    except ValueError:
        raise UsageError(f"--hop is {hop!r}: give seconds, such as 0.5, or 'dense'") from None


def refuse_empty(arguments: Sequence[str]) -> None:
    """Raise UsageError for an argument of nothing: as a path it would be the current folder."""
    for before, argument in pairwise(["stapes", *arguments]):
        if not argument.strip():
            raise UsageError(f"nothing is given after {before}: is a variable empty?")


def check_json(path: Path | None, *read: Path | None, models: Sequence[str | None] = ()) -> None:
    """A result that cannot be written should be told before the work, not after.

    It takes the place of an earlier one, or of another file that begins like JSON, but of nothing
    else.
    """
    if path is not None:
        places = [place for place in read if place is not None]
        check_out(path, read=places, models=[m for m in models if m], overwrite=True)
        if path.exists():
            with path.open("rb") as file:
                if file.read(1) not in (b"", b"{", b"["):
                    raise UsageError(f"{path} exists and is no JSON: give another name")


def check_out(
    path: Path, *, read: Sequence[Path], models: Sequence[str] = (), overwrite: bool
) -> None:
    """Raise unless a file can be written without harm to what is read or already there."""
    from stapes.inference import model_path
    from stapes.runs import refuse_inside

    if path.is_dir():
        raise UsageError(f"{path} is a folder: give the name of a file")
    refuse_inside(path, *read, *map(model_path, models))
    if path.exists() and not (overwrite and path.is_file()):
        fix = "give another name or --overwrite" if path.is_file() else "give the name of a file"
        raise UsageError(f"{path} exists: {fix}")
    if path.exists() and path.suffix.lower() in AUDIO_SUFFIXES:
        raise UsageError(f"{path} is a recording: give another name")
    if Path("/dev") in path.absolute().parents:  # such as /dev/stdout, led into a file
        raise UsageError(f"{path} is no place for a file: give the name of one")
    if not os.access(path.absolute().parent, os.W_OK):
        raise StapesError(f"{path}: its folder is missing or cannot be written; choose another")
    remove_orphans(path.absolute().parent)
