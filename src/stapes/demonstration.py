"""Everything at once: recordings, training, an honest measure, predictions, explanations."""

from pathlib import Path
from typing import Any

from stapes import experiment, runs
from stapes.archive import predict
from stapes.clips import Skip
from stapes.dataset import list_clips
from stapes.explanation import MAX_SECONDS, explain
from stapes.files import file_name
from stapes.holdout import train
from stapes.progress import Progress, silent
from stapes.synthesis import write_demo

N_SHOWN = 6
"""Recordings whose predictions are shown."""


def demo(  # noqa: PLR0913 (each is an option of training)
    data: str | Path | None = None,
    *,
    out: str | Path = "demo",
    seed: int = 0,
    preset: str | None = None,
    budget: str | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> dict[str, Any]:
    """Train, measure, predict and explain, on the recordings given or on synthesised ones.

    Args:
        data: as for :func:`stapes.train`; barks and meows synthesised on the spot if None.
        out: folder to write: ``recordings`` (if synthesised), ``run`` and one ``explain-CLASS`` a
            class, of a recording whose prediction is shown, too, if it is not too long.
        seed: of the synthesis and of the training.
        preset: as for :func:`stapes.train`, like the budget and the threads.
        budget: a time, which chooses the preset and the epochs.
        threads: of the processor.
        overwrite: replace an earlier demo in ``out``.
        progress: told how it goes.
        **settings: as for :func:`stapes.train`; a leaking split of the data is made anew.

    Returns:
        "metrics" of the training, "predictions" of a few recordings that were held out, and
        "pages" to open, by what they show.
    """
    from stapes.training import check_device

    folder = Path(out)
    run = folder / "run"
    settings = {"leaks": "regroup", **settings, "seed": seed}
    _, training_config = experiment.parse(settings, preset or "classic")
    check_device(training_config)  # what is wrong is told before anything is written
    runs.refuse_taken(run, resume=None, overwrite=overwrite)
    if data is None:
        progress("synthesising", 0, 1, "")
        data = write_demo(folder / "recordings", seed=seed, overwrite=overwrite)
        progress("synthesising", 1, 1, "")
    metrics = train(
        data,
        out=run,
        preset=preset,
        budget=budget,
        overwrite=overwrite,
        threads=threads,
        progress=progress,
        **settings,
    )
    root = list_clips(data).root
    held_out = _some_of_each(metrics["held_out"], N_SHOWN // len(metrics["classes"]) or 1)
    paths = list(dict.fromkeys(root / name for name, _ in held_out))
    answers = [p for p in predict(run, paths) if not isinstance(p, Skip)]
    short = {answer.path for answer in answers if answer.duration_seconds <= MAX_SECONDS}
    pages = {"report": run / "report.html"}
    for name, label in held_out:
        if f"one {label}" not in pages and str(root / name) in short:
            place = folder / f"explain-{file_name(label)}"
            while place in {page.parent for page in pages.values()}:  # of a label much like it
                place = place.with_name(f"{place.name}_")
            pages[f"one {label}"] = explain(
                run, root / name, out=place, overwrite=overwrite, progress=progress
            )
    return {"metrics": metrics, "predictions": answers, "pages": pages}


def _some_of_each(held_out: list[dict[str, str]], n_each: int) -> list[tuple[str, str]]:
    """The first few held-out recordings of every class: (name, label)."""
    by_label: dict[str, list[str]] = {}
    for clip in held_out:
        by_label.setdefault(clip["label"], []).append(clip["name"])
    return [(name, label) for label, names in by_label.items() for name in names[:n_each]]
