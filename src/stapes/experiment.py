"""The protocols: train and hold out, cross-validate, evaluate, and the notebook beside ours."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stapes import __version__, checkpoint, evaluation, runs
from stapes.checkpoint import Model
from stapes.clips import Clip
from stapes.config import SAMPLE_RATE, ModelConfig, TrainingConfig, as_dict, preset_sizes
from stapes.dataset import DecodedDataset, decode, load_dataset
from stapes.engine import FoldedNetwork
from stapes.errors import DataError, TrainingError, UsageError
from stapes.files import write_json, write_text
from stapes.inference import load
from stapes.measurement import Measured, measure, summarise, targets_of
from stapes.segments import Waveform
from stapes.splits import folds, given_split, split

if TYPE_CHECKING:
    from stapes.training import Examples, State, Step

TEST_SHARE = 0.2
"""Share of the sources that ``train`` holds out to measure the model on."""

N_EXAMPLES = 3
"""Recordings of each class that the report shows."""

Progress = Callable[[str, int, int, str], None]
"""Told what is being done, how much of it is done, of how much, and how it goes."""


def silent(_task: str, _done: int, _total: int, _note: str) -> None:
    """Progress for nobody."""


def learn(
    decoded: DecodedDataset,
    indices: Sequence[int],
    *,
    config: ModelConfig,
    settings: TrainingConfig,
    state_path: Path | None = None,
    on_step: "Callable[[Step], None] | None" = None,
) -> "State":
    """Train on some of the clips, a grouped part of which chooses the best epoch.

    Args:
        decoded: all clips.
        indices: those to train on.
        config: the network.
        settings: how to train it.
        state_path: where the state is saved, and resumed from if it exists.
        on_step: called after every step.

    Returns:
        The final state, whose ``best`` are the weights of the best epoch.
    """
    from stapes.training import fit

    chosen = [decoded.clips[i] for i in indices]
    rest, held = list(range(len(chosen))), list[int]()
    if settings.validation_share > 0:
        rest, held = split(chosen, share=settings.validation_share, seed=settings.seed)
    return fit(
        config,
        settings,
        training=_examples(decoded, [indices[i] for i in rest], config.classes),
        validation=_examples(decoded, [indices[i] for i in held], config.classes) if held else None,
        state_path=state_path,
        on_step=on_step,
    )


def _examples(
    decoded: DecodedDataset, indices: Sequence[int], classes: Sequence[str]
) -> "Examples":
    from stapes.training import Examples

    clips = [decoded.clips[i] for i in indices]
    waveforms = [decoded.waveforms[i] for i in indices]
    return Examples([c.name for c in clips], waveforms, targets_of(clips, classes).tolist())


def train(
    data: str | Path,
    *,
    out: str | Path,
    preset: str = "classic",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> dict[str, Any]:
    """Train on recordings, measure on sources held out, and write a run folder.

    Args:
        data: a folder of class folders, a folder or CSV with labels, or the Kaggle download.
        out: the run folder: model.safetensors, metrics.json, history.jsonl, report.html.
        preset: name of the network.
        resume: go on where an earlier run in ``out`` ended; the result is the same, bit for bit.
        overwrite: replace an earlier run in ``out``.
        progress: told how it goes.
        **settings: fields of :class:`stapes.config.TrainingConfig`.

    Returns:
        What is written to metrics.json.

    Raises:
        DataError: the data cannot be trained on.
        TrainingError: the loss was not finite; the best model until then is kept in ``out``.
        StopRequestedError: Ctrl-C or SIGTERM; the state is saved for ``resume``.
    """
    started = time.monotonic()
    training_config, sizes = TrainingConfig(**settings), preset_sizes(preset)
    runs.refuse_inside(out, data)
    with runs.run_folder(out, resume=resume, overwrite=overwrite) as folder:
        decoded = read(data, progress)
        config = ModelConfig(class_names(decoded.clips), **sizes)
        training, test = given_split(decoded.clips) or split(
            decoded.clips, share=TEST_SHARE, seed=training_config.seed
        )
        try:
            state = learn(
                decoded,
                training,
                config=config,
                settings=training_config,
                state_path=folder / runs.STATE_FILE,
                on_step=step_reporter(progress, "training"),
            )
        except TrainingError as error:
            raise TrainingError(f"{error}; {_keep_best(folder, config)}") from error
        model = Model(config, state.best, about(decoded, training, state, preset, training_config))
        checkpoint.save(folder / checkpoint.MODEL_FILE, model)
        measured = measure(model.fold(), *decoded.pick(test))
        metrics = summarise([measured]) | _provenance(started, preset, training_config)
        metrics |= {"best_epoch": state.best_epoch} | left_out(decoded)
        metrics["held_out"] = [{"name": c.name, "label": c.label} for c in measured.clips]
        write_json(folder / runs.METRICS_FILE, metrics)
        rows = "".join(json.dumps(row) + "\n" for row in state.history)
        write_text(folder / runs.HISTORY_FILE, rows)
        page = _report(metrics, state.history, measured, decoded, title=Path(data).name)
        write_text(folder / runs.REPORT_FILE, page)
    return metrics


def _report(
    metrics: dict[str, Any],
    history: list[dict[str, float]],
    measured: Measured,
    decoded: DecodedDataset,
    *,
    title: str,
) -> str:
    """The page of a run."""
    from stapes.report import render_report

    shares, classes = measured.clip_probabilities(), measured.config.classes
    shown = {1: classes[1]} if len(classes) == 2 else dict(enumerate(classes))
    curves = {
        name: evaluation.roc_curve(measured.targets, shares, index=index)
        for index, name in shown.items()
        if 0 < (measured.targets == index).sum() < len(shares)
    }
    examples: dict[str, list[tuple[str, Waveform]]] = {name: [] for name in classes}
    for clip, waveform in zip(decoded.clips, decoded.waveforms, strict=True):
        if len(examples[clip.label]) < N_EXAMPLES:
            examples[clip.label].append((clip.name, waveform))
    return render_report(
        metrics,
        title=title,
        history=history,
        curves=curves,
        examples=examples,
        sample_rate=decoded.sample_rate,
    )


def crossval(
    data: str | Path,
    *,
    preset: str = "classic",
    seeds: int = 3,
    progress: Progress = silent,
    **settings: Any,
) -> dict[str, Any]:
    """Grouped k-fold cross-validation: every clip is judged by networks that never saw its source.

    The column ``fold`` decides if there is one, else five stratified folds made by seed 0.

    Args:
        data: as for :func:`train`.
        preset: name of the network.
        seeds: trainings of each fold, with the seeds 0, 1, ...
        progress: told how it goes.
        **settings: fields of :class:`stapes.config.TrainingConfig`, except the seed.

    Returns:
        Metrics over all folds and seeds, and of each fold and each seed.
    """
    started = time.monotonic()
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}: give at least 1")
    base, sizes = TrainingConfig(**settings), preset_sizes(preset)
    decoded = read(data, progress)
    config = ModelConfig(class_names(decoded.clips), **sizes)
    pairs = folds(decoded.clips, seed=0)
    measured: dict[tuple[int, int], Measured] = {}
    for seed in range(seeds):
        for k, (training, held) in enumerate(pairs):
            task = f"fold {k + 1} of {len(pairs)}, seed {seed + 1} of {seeds}"
            state = learn(
                decoded,
                training,
                config=config,
                settings=replace(base, seed=seed),
                on_step=step_reporter(progress, task),
            )
            network = FoldedNetwork.fold(config, state.best)
            measured[seed, k] = measure(network, *decoded.pick(held))
    metrics = summarise(list(measured.values()), n_repeats=seeds)
    by_fold = [
        summarise([measured[s, k] for s in range(seeds)], n_repeats=seeds)
        for k in range(len(pairs))
    ]
    by_seed = [summarise([measured[s, k] for k in range(len(pairs))]) for s in range(seeds)]
    metrics["folds"] = [{"fold": k + 1, **_headline(m)} for k, m in enumerate(by_fold)]
    metrics["seeds"] = [{"seed": s, **_headline(m)} for s, m in enumerate(by_seed)]
    return metrics | _provenance(started, preset, base) | left_out(decoded)


def evaluate(model: str | Path, data: str | Path, *, progress: Progress = silent) -> dict[str, Any]:
    """Segments and clips of labelled recordings that a model gets right.

    Args:
        model: a model file, a run folder, or the name of a shipped model.
        data: as for :func:`train`; its labels must be classes of the model.
        progress: told how it goes.

    Raises:
        DataError: a label that the model does not know.
    """
    started = time.monotonic()
    classifier = load(model)
    decoded = read(data, progress, config=classifier.config)
    unknown = sorted({clip.label for clip in decoded.clips} - set(classifier.classes))
    if unknown:
        raise DataError(
            f"{data}: label {unknown[0]!r} is not a class of the model"
            f" ({', '.join(classifier.classes)}); rename the folder or the label"
        )
    metrics = summarise([measure(classifier.network, decoded.clips, decoded.waveforms)])
    metrics |= {"seconds": time.monotonic() - started, "version": __version__}
    return metrics | left_out(decoded)


def read(
    data: str | Path, progress: Progress, *, config: ModelConfig | None = None
) -> DecodedDataset:
    """All clips of a data set, at the rate of a model if one is given."""
    sample_rate = config.sample_rate if config else SAMPLE_RATE
    return decode(
        load_dataset(data),
        sample_rate=sample_rate,
        progress=lambda done, total: progress("reading", done, total, ""),
        training=config is None,
    )


def class_names(clips: Sequence[Clip]) -> tuple[str, ...]:
    """Labels that occur, sorted: the classes of a network trained on these clips."""
    return tuple(sorted({clip.label for clip in clips}))


def _headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """The few numbers of a fold or a seed."""
    keys = ("accuracy", "balanced_accuracy", "n")
    return {part: {k: metrics[part][k] for k in keys} for part in ("segments", "clips")}


def _provenance(started: float, preset: str, settings: TrainingConfig) -> dict[str, Any]:
    return {
        "seconds": time.monotonic() - started,
        "version": __version__,
        "preset": preset,
        "settings": as_dict(settings),
    }


def left_out(decoded: DecodedDataset) -> dict[str, Any]:
    """What the results of a command say of inputs it could not use or trust."""
    skipped = [{"name": s.name, "reason": s.reason} for s in decoded.skipped]
    return {"skipped": skipped, "warnings": list(decoded.warnings)}


def step_reporter(progress: Progress, task: str) -> "Callable[[Step], None]":
    """Turns training steps into progress."""

    def report(step: "Step") -> None:
        note = (
            f"loss {step.loss:.3f}, accuracy {step.accuracy:.0%},"
            f" {step.segments_per_second:,.0f} segments/s"
        )
        progress(task, step.step, step.n_steps, note)

    return report


def _keep_best(folder: Path, config: ModelConfig) -> str:
    """Write the best model of a training that failed; says what was done."""
    from stapes.training import best_of

    tensors, epoch = best_of(folder / runs.STATE_FILE)
    if not tensors:
        return "no epoch was complete, so there is no model"
    checkpoint.save(folder / checkpoint.MODEL_FILE, Model(config, tensors))
    return f"the model of epoch {epoch} is kept in {folder / checkpoint.MODEL_FILE}"


def about(
    decoded: DecodedDataset,
    training: Sequence[int],
    state: "State",
    preset: str,
    settings: TrainingConfig,
) -> dict[str, Any]:
    """What a model remembers of its training; the same for the same training."""
    clips, waveforms = decoded.pick(training)
    return {
        "version": __version__,
        "preset": preset,
        "settings": as_dict(settings),
        "best_epoch": state.best_epoch,
        "clips": {label: sum(c.label == label for c in clips) for label in class_names(clips)},
        "sources": len({clip.source for clip in clips}),
        "seconds_of_audio": round(sum(map(len, waveforms)) / decoded.sample_rate, 1),
    }
