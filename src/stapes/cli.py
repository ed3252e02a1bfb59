"""The terminal: every command is one public function; only this file prints and catches."""

import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.exceptions import TyperException

from stapes import __version__
from stapes.errors import StapesError, UsageError
from stapes.options import (
    EXTRA_OF,
    PRESET,
    Archive,
    Batch,
    Budget,
    ByFile,
    Data,
    Device,
    Epochs,
    Foreign,
    Json,
    Labels,
    LeakChoice,
    ModelName,
    Overwrite,
    OwnData,
    Paths,
    Patience,
    Preset,
    Rate,
    Resume,
    Run,
    Threads,
    Validation,
    check_json,
    check_out,
    given,
    hop_of,
    refuse_empty,
)
from stapes.terminal import (
    finish,
    open_closed,
    print_metrics,
    print_protocols,
    progress_bar,
    save_json,
    say,
    table_lines,
    tell_run,
    tell_skipped,
    write_lines,
)

if TYPE_CHECKING:
    from stapes.inference import Prediction

app = typer.Typer(
    help="Recognise sounds straight from the waveform with a tiny convolutional network.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"stapes {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(UsageError.exit_code)


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    preset: Annotated[str | None, PRESET] = None,
    budget: Budget = None,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    labels: Labels = None,
    leaks: LeakChoice = "refuse",
    foreign: Foreign = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    epochs: Epochs = None,
    batch_size: Batch = None,
    learning_rate: Rate = None,
    validation_share: Validation = None,
    patience: Patience = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Train a classifier and measure it on sources held out."""
    from stapes.holdout import train as run

    settings = given(locals())
    with progress_bar() as progress:
        metrics = run(
            data,
            out=out,
            preset=preset,
            budget=budget,
            resume=resume,
            overwrite=overwrite,
            threads=threads,
            progress=progress,
            seed=seed,
            leaks=leaks,
            **settings,
        )
    print_metrics(metrics, title="Held-out sources")
    tell_run(out)
    finish(metrics)


@app.command()
def crossval(
    data: Data,
    out: Run = None,
    preset: Preset = "classic",
    seeds: Annotated[int, typer.Option(help="Trainings of each fold.")] = 3,
    json_path: Json = None,
    labels: Labels = None,
    leaks: LeakChoice = "refuse",
    foreign: Foreign = None,
    by_file: ByFile = True,
    resume: Resume = False,
    overwrite: Overwrite = False,
    epochs: Epochs = None,
    batch_size: Batch = None,
    learning_rate: Rate = None,
    validation_share: Validation = None,
    patience: Patience = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Cross-validate with grouped folds, beside baselines and a split by file."""
    from stapes.crossvalidation import crossval as run

    check_json(json_path, data, labels)
    settings = given(locals())
    with progress_bar() as progress:
        metrics = run(
            data,
            out=out,
            preset=preset,
            seeds=seeds,
            resume=resume,
            overwrite=overwrite,
            by_file=by_file,
            threads=threads,
            progress=progress,
            leaks=leaks,
            **settings,
        )
    save_json(metrics, json_path)
    print_metrics(metrics, title=f"{len(metrics['folds'])} folds, seeds: {seeds}")
    tell_run(out)
    finish(metrics)


@app.command()
def evaluate(
    model: ModelName,
    data: Data,
    out: Run = None,
    against: Annotated[str | None, typer.Option(help="Another model to compare with.")] = None,
    json_path: Json = None,
    leaks: LeakChoice = "refuse",
    foreign: Foreign = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure a model on labelled recordings that it was not made from."""
    from stapes.assessment import evaluate as run

    check_json(json_path, data, models=(model, against))
    with progress_bar() as progress:
        metrics = run(
            model,
            data,
            out=out,
            against=against,
            overwrite=overwrite,
            progress=progress,
            leaks=leaks,
            foreign=foreign or (),
        )
    save_json(metrics, json_path)
    print_metrics(metrics, title=str(data))
    tell_run(out)
    finish(metrics)


@app.command()
def audit(
    data: Data,
    json_path: Json = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table of labels and sources to write.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Find recordings that are copies of one another, overlap, or are damaged."""
    from stapes.annotations import TABLE_NAME
    from stapes.auditing import audit as run
    from stapes.auditing import write_sources
    from stapes.terminal import print_audit

    check_json(json_path, data)
    if out is not None:
        tables = [path for path in (data, data / TABLE_NAME) if path.is_file()]
        check_out(out, read=tables, overwrite=overwrite)
        if json_path is not None and out.resolve() == json_path.resolve():
            raise UsageError(f"--out and --json are both {out}: give two files")
    with progress_bar() as progress:
        results = run(data, progress=progress)
    save_json(results, json_path)
    if out is not None:
        write_sources(out, results)
    print_audit(results)
    finish(results)


@app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]) -> None:
    """Write the report of a run folder anew."""
    from stapes.reporting import report as write

    say(f"wrote {write(run)}")


@app.command()
def reproduce(
    data: Data,
    seeds: Annotated[int, typer.Option(help="Splits and trainings of each protocol.")] = 3,
    epochs: Annotated[int, typer.Option(help="Epochs of 100 steps each.")] = 15,
    json_path: Json = None,
) -> None:
    """Run the notebook's protocol beside an honest one and state the gap."""
    from stapes.notebook import reproduce as run

    check_json(json_path, data)
    with progress_bar() as progress:
        results = run(data, seeds=seeds, epochs=epochs, progress=progress)
    save_json(results, json_path)
    print_protocols(results)
    finish(results)


@app.command()
def predict(
    model: ModelName,
    paths: Paths,
    hop: Annotated[str | None, typer.Option(help="Seconds between segments, or 'dense'.")] = None,
    vote: Annotated[
        Literal["mean", "majority"], typer.Option(help="How segments decide.")
    ] = "mean",
    output_format: Annotated[
        Literal["table", "csv", "jsonl"], typer.Option("--format", help="How to print.")
    ] = "table",
    segments: Annotated[bool, typer.Option("--segments", help="Also every segment.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write instead of printing.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Classify recordings."""
    from stapes.archive import predict as run
    from stapes.clips import Skip
    from stapes.inference import load
    from stapes.terminal import WRITERS

    classifier = load(model)
    if out is not None:
        check_out(out, read=paths, models=[model], overwrite=overwrite)
    skipped: list[Skip] = []

    def answers(results: "Iterable[Prediction | Skip]") -> "Iterator[Prediction]":
        for item in results:
            if isinstance(item, Skip):
                skipped.append(item)
            else:
                yield item

    with progress_bar(shown=out is not None or not sys.stdout.isatty()) as progress:
        results = run(classifier, paths, hop=hop_of(hop), vote=vote, progress=progress)
        lines = WRITERS[output_format](answers(results), classifier.classes, segments=segments)
        write_lines(lines, out)
    tell_skipped([(skip.name, skip.reason) for skip in skipped])


@app.command()
def explain(
    model: ModelName,
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A recording.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures and the page.")],
    overwrite: Overwrite = False,
) -> None:
    """Draw what the network does with one recording, layer by layer."""
    from stapes.explanation import explain as run

    with progress_bar() as progress:
        page = run(model, clip, out=out, overwrite=overwrite, progress=progress)
    say(f"wrote {page} and the figures beside it")


@app.command()
def demo(
    data: OwnData = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    preset: Annotated[str | None, PRESET] = None,
    budget: Budget = None,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Train, measure, predict and explain on recordings synthesised on the spot, or on yours."""
    from stapes.demonstration import demo as run

    with progress_bar() as progress:
        results = run(
            data,
            out=out,
            seed=seed,
            preset=preset,
            budget=budget,
            threads=threads,
            overwrite=overwrite,
            progress=progress,
        )
    print_metrics(results["metrics"], title="Held-out sources")
    write_lines(table_lines(results["predictions"], ()), None)
    for name, path in results["pages"].items():
        say(f"{name}: {path}")
    finish(results["metrics"])


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="cats-dogs or esc10.")],
    out: Annotated[Path | None, typer.Option(help="Folder to make; its name if none.")] = None,
    archive: Archive = None,
    overwrite: Overwrite = False,
) -> None:
    """Download a public set of recordings."""
    from stapes.download import fetch as run

    with progress_bar() as progress:
        folder = run(name, out=out, archive=archive, overwrite=overwrite, progress=progress)
    say(f"recordings are in {folder}; train with: stapes train {folder} --out run")


def main() -> None:
    """Run the command line; errors become one line and an exit code."""
    open_closed()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal cannot show
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            refuse_empty(sys.argv[1:])
            code = app(prog_name="stapes", standalone_mode=False) or 0
    except StapesError as error:
        code = _fail(str(error), error.exit_code)
    except TyperException as error:
        code = _fail(error.format_message(), error.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA_OF:
            raise
        code = _fail(f"this needs {error.name}: pip install 'stapes[{EXTRA_OF[error.name]}]'")
    except MemoryError:
        code = _fail("out of memory; give fewer or shorter recordings at a time")
    except (KeyboardInterrupt, typer.Abort):
        code = 128 + signal.SIGINT
    except (BrokenPipeError, SystemExit):  # typer and rich turn the first into the second
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    except OSError as error:
        code = _fail(f"{error.filename or 'output'}: {error.strerror}; check the path")
    sys.exit(code)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {message}")


def _fail(message: str, code: int = StapesError.exit_code) -> int:
    say(f"error: {message}")
    return code
