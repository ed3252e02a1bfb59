"""Grouped k-fold cross-validation: every clip is judged by networks that never heard its source."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stapes import account, evaluation, experiment, reporting, runs
from stapes.checkpoint import Model
from stapes.clips import Clip
from stapes.config import ModelConfig, TrainingConfig, as_dict, in_range, preset_sizes
from stapes.dataset import DecodedDataset
from stapes.engine import FoldedNetwork
from stapes.errors import UsageError
from stapes.foreign import read_foreign
from stapes.measurement import Measured, measure, measure_foreign, summarise
from stapes.negatives import is_negative
from stapes.progress import Progress, silent
from stapes.splits import Pairs, folds
from stapes.threads import using_threads

if TYPE_CHECKING:
    from stapes.training import State, Step

Answers = list[list[Measured]]
"""What was said of the clips of each fold, by seed."""


def crossval(  # noqa: PLR0913 (each is an option of the command)
    data: str | Path,
    *,
    out: str | Path | None = None,
    preset: str = "classic",
    seeds: int = 3,
    resume: bool = False,
    overwrite: bool = False,
    by_file: bool = True,
    threads: int | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> dict[str, Any]:
    """Cross-validate, beside baselines and beside what a split by file would have said.

    The column ``fold`` decides if there is one, else five stratified folds made by seed 0.

    Args:
        data: as for :func:`stapes.train`.
        out: a run folder for the numbers, the report, and a model trained on all clips that
            is calibrated by the answers out of fold; without it nothing is written.
        preset: name of the network.
        seeds: trainings of each fold, with the seeds 0, 1, ...
        resume: go on where an earlier cross-validation in ``out`` ended.
        overwrite: replace an earlier run in ``out``.
        by_file: see also what a split by file would have said, which doubles the time.
        threads: of the processor; all of them if None.
        progress: told how it goes.
        **settings: fields of :class:`stapes.experiment.DataOptions`, and of
            :class:`stapes.config.TrainingConfig` except the seed.

    Returns:
        Metrics over all folds and seeds, and of each fold and each seed; ``training_seconds`` of
        each training of a fold. Folds have the data's own numbers, or 1, 2 and so on.
    """
    started = time.monotonic()
    seeds = in_range("seeds", seeds, 1, experiment.MOST_SEEDS)
    if "seed" in settings:
        raise UsageError("crossval trains with the seeds 0, 1 and so on: give seeds, their number")
    options, _ = experiment.parse(settings, preset)  # what is wrong is told before any reading
    sizes = preset_sizes(preset)
    if out is not None:
        runs.refuse_inside(out, data, *options.foreign)
        if overwrite:
            runs.refuse_labels_of(out, options.labels)
    if resume and out is None:
        raise UsageError("--resume goes on in a run folder: give the --out of the earlier run")
    place = (
        nullcontext() if out is None else runs.run_folder(out, resume=resume, overwrite=overwrite)
    )
    with using_threads(threads), place as folder:
        if folder is not None and resume:
            runs.check_resumable(folder, of="crossval")
        decoded, audit = experiment.read(data, progress, options=options)
        config = ModelConfig(experiment.class_names(decoded.clips), **sizes)
        _, base = experiment.parse(settings, preset, n_classes=len(config.classes))
        foreign = read_foreign(options.foreign, progress, beside=decoded)
        trial = _Trial(decoded, foreign, config, base, progress, folder=folder)
        pairs = folds(decoded.clips, seed=0, allow_leaks=options.leaks == "allow")
        leaking = _split_by_file(decoded, n_folds=len(pairs)) if by_file else None
        learnt = [part for part, _ in [*pairs, *(leaking or [])]]
        experiment.check_learnable(decoded, learnt, base)
        if folder is not None:
            if overwrite:
                runs.begin_anew(folder)
            (folder / runs.TRAININGS_FOLDER).mkdir(exist_ok=True)
        measured, metrics, knowledge = _measure(trial, pairs, leaking, seeds)
        profile = experiment.profile_of(decoded)
        started -= sum(trial.earlier_seconds)
        metrics |= experiment.provenance("crossval", data, decoded, trial.foreign, started=started)
        metrics |= {"profile": profile.as_dict(), "audit": audit, "leaks": options.leaks}
        metrics |= {"preset": preset, "settings": as_dict(base)}
        metrics["training_seconds"] = trial.seconds[: seeds * len(pairs)]
        doubts = account.suspicions(measured.known, knowledge["calibration"])
        metrics["suspicious"] = [suspicion.as_dict() for suspicion in doubts[0]]
        if folder is not None:
            model = _final_model(trial, preset, knowledge | {"profile": profile})
            reporting.write_run(folder, metrics, decoded, model=model, doubts=doubts)
            runs.forget_trainings(folder)
    return metrics


@dataclass(frozen=True, slots=True)
class _Trial:
    """Everything that the trainings of a cross-validation share, and the seconds each took.

    ``earlier_seconds`` are those of them that an interrupted run spent.
    """

    decoded: DecodedDataset
    foreign: DecodedDataset
    config: ModelConfig
    settings: TrainingConfig
    progress: Progress
    folder: Path | None
    seconds: list[float] = field(default_factory=list)
    earlier_seconds: list[float] = field(default_factory=list)

    def learn(
        self, name: str, training: Sequence[int], *, seed: int, on_step: "Callable[[Step], None]"
    ) -> "State":
        """One training, which goes on from its saved state where there is one."""
        state = experiment.learn(
            self.decoded,
            training,
            config=self.config,
            settings=replace(self.settings, seed=seed),
            state_path=self.folder and runs.training_state(self.folder, name),
            on_step=on_step,
        )
        self.seconds.append(round(state.seconds, 3))
        self.earlier_seconds.append(state.earlier_seconds)
        return state

    def answers(self, pairs: Pairs, seeds: int, *, task: str) -> Answers:
        """Train on each fold's other clips, with each seed, and ask about its own."""
        return [
            [self._answer(pairs, seed, k, seeds, task=task) for k in range(len(pairs))]
            for seed in range(seeds)
        ]

    def _answer(self, pairs: Pairs, seed: int, k: int, seeds: int, *, task: str) -> Measured:
        n_folds = len(pairs)
        training, held = pairs[k]
        state = self.learn(
            f"{task}-{seed}-{k}",
            training,
            seed=seed,
            on_step=experiment.step_reporter(
                self.progress,
                task,
                done=seed * n_folds + k,
                of=seeds * n_folds,
                note=f"fold {k + 1} of {n_folds}, seed {seed + 1} of {seeds}, ",
            ),
        )
        network = FoldedNetwork.fold(self.config, state.best)
        own = measure(network, *self.decoded.pick(held))
        others = measure_foreign(network, self.foreign.clips, self.foreign.waveforms)
        return Measured.join([own, others])


def _measure(
    trial: _Trial, pairs: Pairs, leaking: Pairs | None, seeds: int
) -> tuple[Measured, dict[str, Any], dict[str, Any]]:
    """What was said of every clip, how good that is, and what a model may know of itself by it."""
    decoded = trial.decoded
    answers = trial.answers(pairs, seeds, task="cross-validating")
    together = Measured.join([part for of_seed in answers for part in of_seed])
    knowledge, metrics = account.conclude(together, together, n_repeats=seeds)
    metrics |= account.beside_baselines(together, decoded, pairs, progress=trial.progress)
    by_fold = [Measured.join(parts).known for parts in zip(*answers, strict=True)]
    by_seed = [Measured.join(parts).known for parts in answers]
    given = sorted({clip.fold for clip in decoded.clips if clip.fold is not None})
    metrics["folds"] = [
        {"fold": fold, **_headline(m, n_repeats=seeds)}
        for fold, m in zip(given or count(1), by_fold, strict=False)
    ]
    metrics["seeds"] = [{"seed": s, **_headline(m)} for s, m in enumerate(by_seed)]
    if leaking is not None:
        found = trial.answers(leaking, seeds, task="split by file, to compare")
        joined = Measured.join([part for of_seed in found for part in of_seed])
        leaked, honest = _right(found), _right(answers)
        difference = evaluation.compare(
            np.array([leaked[key] for key in honest]),
            np.array(list(honest.values())),
            [clip.source for _, clip in honest],
        )
        metrics["by_file"] = _headline(joined.known, n_repeats=seeds) | {"difference": difference}
    return together, metrics, knowledge


def _right(answers: Answers) -> dict[tuple[int, Clip], bool]:
    """Whether each clip of a class was right, by seed."""
    return {
        (seed, clip): bool(right)
        for seed, parts in enumerate(answers)
        for measured in [Measured.join(parts).known]
        for clip, right in zip(measured.clips, measured.right, strict=True)
    }


def _split_by_file(decoded: DecodedDataset, *, n_folds: int) -> Pairs | None:
    """Folds that do not know which files share a source; none where no files do.

    No more than the rarest class has files.
    """
    alone = [replace(clip, source=clip.name, fold=None) for clip in decoded.clips]
    if len({clip.source for clip in decoded.clips}) >= len({clip.name for clip in alone}):
        return None
    files = Counter(label for label, _ in {(clip.label, clip.name) for clip in alone})
    fewest = min(n for label, n in files.items() if not is_negative(label))
    return folds(alone, n_folds=min(n_folds, fewest), seed=0) if fewest > 1 else None


def _headline(measured: Measured, *, n_repeats: int = 1) -> dict[str, Any]:
    """The few numbers of a fold, a seed or a split by file."""
    metrics = summarise(measured, n_repeats=n_repeats)
    keys = ("accuracy", "balanced_accuracy", "n", "interval")
    return {part: {k: metrics[part][k] for k in keys} for part in ("segments", "clips")}


def _final_model(trial: _Trial, preset: str, knowledge: dict[str, Any]) -> Model:
    """A model that learnt from all clips."""
    everything = range(len(trial.decoded.clips))
    on_step = experiment.step_reporter(trial.progress, "training on all clips")
    state = trial.learn("all", everything, seed=trial.settings.seed, on_step=on_step)
    origin = experiment.about(trial.decoded, everything, state, preset, trial.settings)
    return Model(trial.config, state.best, origin, **knowledge)
