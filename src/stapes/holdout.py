"""Train on most sources, measure on the others, and write a run folder."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stapes import account, checkpoint, experiment, reporting, runs
from stapes.budget import choose, parse_budget
from stapes.checkpoint import Model
from stapes.clips import Clip
from stapes.config import ModelConfig, TrainingConfig, as_dict, preset_sizes
from stapes.dataset import DecodedDataset
from stapes.engine import FoldedNetwork
from stapes.errors import TrainingError, UsageError
from stapes.files import write_json
from stapes.foreign import read_foreign
from stapes.measurement import Measured, measure, measure_foreign
from stapes.negatives import is_negative
from stapes.progress import Progress, silent
from stapes.splits import given_split, split
from stapes.threads import using_threads

if TYPE_CHECKING:
    from stapes.training import State

TEST_SHARE = 0.2
"""Share of each class's clips, in whole sources, that ``train`` holds out to measure with."""


def train(  # noqa: PLR0913 (each is an option of the command)
    data: str | Path,
    *,
    out: str | Path,
    preset: str | None = None,
    budget: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> dict[str, Any]:
    """Train on recordings, measure on sources held out, and write a run folder.

    Args:
        data: a folder of class folders, a folder or CSV with labels, or the Kaggle download.
        out: the run folder: model.safetensors, metrics.json, history.jsonl, report.html.
        preset: name of the network; "classic" unless a budget chooses.
        budget: a time such as "60s" or "5m", which chooses the preset and the epochs.
        resume: go on where an earlier run in ``out`` ended; the result is the same, bit for bit.
        overwrite: replace an earlier run in ``out``.
        threads: of the processor; all of them if None.
        progress: told how it goes.
        **settings: fields of :class:`stapes.experiment.DataOptions` and of
            :class:`stapes.config.TrainingConfig`.

    Returns:
        What is written to metrics.json.

    Raises:
        DataError: the data cannot be trained on.
        TrainingError: the loss was not finite; the best model until then is kept in ``out``.
        StopRequestedError: Ctrl-C or SIGTERM; the state is saved for ``resume``.
    """
    started = time.monotonic()
    seconds = _budget_seconds(budget, fixed=preset is not None or "epochs" in settings)
    preset = preset or "classic"
    options, training_config = experiment.parse(settings, preset)
    runs.refuse_inside(out, data, *options.foreign)
    if overwrite:
        runs.refuse_labels_of(out, options.labels)
    place = runs.run_folder(out, resume=resume, overwrite=overwrite)
    with using_threads(threads), place as folder:
        if resume:
            runs.check_resumable(folder, of="train")
        decoded, audit = experiment.read(data, progress, options=options)
        foreign = read_foreign(options.foreign, progress, beside=decoded)
        training, test = given_split(decoded.clips, allow_leaks=options.leaks == "allow") or split(
            decoded.clips, share=TEST_SHARE, seed=training_config.seed
        )
        experiment.check_learnable(decoded, [training], training_config)
        bought = _earlier_choice(folder, seconds) if resume else None
        if seconds is not None and bought is None:
            bought = choose(
                decoded,
                training,
                settings=training_config,
                budget_seconds=seconds,
                spent_seconds=time.monotonic() - started,
                progress=progress,
            ).as_dict()
        if bought is not None:
            preset, settings = bought["preset"], settings | {"epochs": bought["epochs"]}
        config = ModelConfig(experiment.class_names(decoded.clips), **preset_sizes(preset))
        _, training_config = experiment.parse(settings, preset, n_classes=len(config.classes))
        if overwrite:
            runs.begin_anew(folder)
        if bought is not None:
            write_json(folder / runs.BUDGET_FILE, bought)
        state = _learn(folder, decoded, training, config, training_config, progress)
        tested, knowledge, metrics = _judged(config, state, decoded, test, foreign)
        learnt, _ = experiment.hold_out(decoded, training, training_config)
        metrics |= account.beside_baselines(tested, decoded, [(learnt, test)], progress=progress)
        profile = experiment.profile_of(decoded.only(training))
        own = [i for i in test if not is_negative(decoded.clips[i].label)]
        about = experiment.about(decoded, training, state, preset, training_config, judged=own)
        model = Model(config, state.best, about, profile=profile, **knowledge)
        started -= state.earlier_seconds
        metrics |= experiment.provenance("train", data, decoded, foreign, started=started) | {
            "profile": profile.as_dict(),
            "audit": audit,
            "leaks": options.leaks,
            "preset": preset,
            "settings": as_dict(training_config),
            "best_epoch": state.best_epoch,
            "budget": bought,
            "held_out": [_named(clip) for clip in tested.known.clips],
        }
        doubts = account.suspicions(tested.known, model.calibration)
        metrics["suspicious"] = [suspicion.as_dict() for suspicion in doubts[0]]
        reporting.write_run(
            folder, metrics, decoded, model=model, doubts=doubts, history=state.history
        )
    return metrics


def _named(clip: Clip) -> dict[str, Any]:
    """A clip for metrics.json: of an event, its times, too."""
    times = {"start_seconds": clip.start_seconds, "end_seconds": clip.end_seconds}
    return {"name": clip.name, "label": clip.label} | (times if clip.is_event else {})


def _judged(
    config: ModelConfig,
    state: "State",
    decoded: DecodedDataset,
    test: Sequence[int],
    foreign: DecodedDataset,
) -> tuple[Measured, dict[str, Any], dict[str, Any]]:
    """What is said of the clips held out, what a model may know of itself by it, how good it is."""
    network = FoldedNetwork.fold(config, state.best)
    tested = measure(network, *decoded.pick(test))
    others = measure_foreign(network, foreign.clips, foreign.waveforms)
    return tested, *account.conclude(tested, Measured.join([tested, others]))


def _budget_seconds(budget: str | None, *, fixed: bool) -> float | None:
    """Seconds, if a budget was given and nothing that it chooses."""
    if budget is not None and fixed:
        raise UsageError(
            "--budget chooses the preset and the epochs: give it without --preset and --epochs"
        )
    return parse_budget(budget) if budget is not None else None


def _earlier_choice(folder: Path, seconds: float | None) -> dict[str, Any] | None:
    """What a budget bought when the run to be resumed began; it must be the same."""
    path = folder / runs.BUDGET_FILE
    if not path.exists():
        if seconds is not None and (folder / runs.STATE_FILE).exists():
            raise UsageError(
                f"{folder}: cannot resume, it was begun without --budget: leave it out, or give a"
                " new --out folder"
            )
        return None
    bought: dict[str, Any] = json.loads(path.read_text())
    if bought["seconds"] != seconds:
        raise UsageError(
            f"{folder}: cannot resume, it was begun with --budget {bought['seconds']:g}s: give the"
            " same or a new --out folder"
        )
    return bought


def _learn(
    folder: Path,
    decoded: DecodedDataset,
    training: Sequence[int],
    config: ModelConfig,
    settings: TrainingConfig,
    progress: Progress,
) -> "State":
    """Train; if that fails, keep the best model until then."""
    try:
        return experiment.learn(
            decoded,
            training,
            config=config,
            settings=settings,
            state_path=folder / runs.STATE_FILE,
            on_step=experiment.step_reporter(progress, "training"),
        )
    except TrainingError as error:
        raise TrainingError(f"{error}; {_keep_best(folder, config)}") from error


def _keep_best(folder: Path, config: ModelConfig) -> str:
    """Write the best model of a training that failed; says what was done."""
    from stapes.training import best_of

    tensors, epoch = best_of(folder / runs.STATE_FILE)
    if not tensors:
        return "no epoch was complete, so there is no model"
    checkpoint.save(folder / checkpoint.MODEL_FILE, Model(config, tensors))
    return f"the model of epoch {epoch} is kept in {folder / checkpoint.MODEL_FILE}"
