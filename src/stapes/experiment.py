"""What every protocol is made of: clips read, a network trained, where results came from."""

import dataclasses
import difflib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from stapes import __version__
from stapes.auditing import summarise
from stapes.clips import Clip
from stapes.config import SAMPLE_RATE, ModelConfig, TrainingConfig, as_dict, preset_training
from stapes.copies import is_constant, mark
from stapes.corrections import apply_labels
from stapes.dataset import DecodedDataset, decode, join_copies, list_clips
from stapes.errors import UsageError
from stapes.measurement import targets_of
from stapes.negatives import is_negative
from stapes.profile import TrainingProfile, describe, profile
from stapes.progress import Progress
from stapes.regrouping import Leaks, regrouped
from stapes.segments import Waveform
from stapes.sharing import cache_folder, find_shared
from stapes.splits import split

if TYPE_CHECKING:
    from stapes.generator import Examples
    from stapes.training import State, Step

MOST_SEEDS = 10_000

N_EXAMPLES = 3
"""Recordings of each class that the report shows."""


@dataclass(frozen=True, slots=True)
class DataOptions:
    """How recordings are read and split.

    Attributes:
        labels: a table of corrected labels, as ``stapes crossval --out`` writes it.
        leaks: where the data's own split divides a source: "refuse" it, "regroup" to make a split
            that does not, or "allow" it.
        foreign: folders of recordings that are none of the classes, to see which are taken for one;
            a single one may stand by itself.
    """

    labels: str | Path | None = None
    leaks: Leaks = "refuse"
    foreign: Sequence[str | Path] = ()

    def __post_init__(self) -> None:
        """Check what can be checked without reading.

        Raises:
            UsageError: ``leaks`` is another word, or a folder of foreign sounds is none.
        """
        if self.leaks not in get_args(Leaks):
            raise UsageError(f"leaks is {self.leaks!r}: give one of {', '.join(get_args(Leaks))}")
        if isinstance(self.foreign, str | Path):
            object.__setattr__(self, "foreign", (self.foreign,))
        for folder in self.foreign:
            if not Path(folder).is_dir():
                raise UsageError(f"{folder}: no such folder; give a folder of foreign sounds")


def parse(
    settings: dict[str, Any], preset: str, *, n_classes: int = 2
) -> tuple[DataOptions, TrainingConfig]:
    """Keyword arguments of a protocol, by what they are about.

    Args:
        settings: what was asked for.
        preset: how its networks are trained unless asked otherwise.
        n_classes: where that is known; more take more epochs.

    Raises:
        UsageError: a name that is no setting, or a value out of its range.
    """
    names = {field.name for field in dataclasses.fields(DataOptions)}
    refuse_unknown(settings, DataOptions, TrainingConfig)
    options = {key: value for key, value in settings.items() if key in names}
    rest = {key: value for key, value in settings.items() if key not in names}
    recipe = preset_training(preset, n_classes=n_classes)
    return DataOptions(**options), TrainingConfig(**{**recipe, **rest})


def refuse_unknown(settings: Iterable[str], *of: type) -> None:
    """Raise UsageError for a setting that is a field of none of some configurations."""
    names = [field.name for one in of for field in dataclasses.fields(one)]
    for name in settings:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1, cutoff=0.0)[0]
            raise UsageError(f"there is no setting {name}: did you mean {near}?")


def read(
    data: str | Path,
    progress: Progress,
    *,
    config: ModelConfig | None = None,
    options: DataOptions = DataOptions(),
) -> tuple[DecodedDataset, dict[str, Any]]:
    """All clips of a data set, audited: clips that share audio share their source.

    Args:
        data: a folder or table.
        progress: told how it goes.
        config: of the model that will judge the clips, if there is one; it gives the rate.
        options: labels to correct, and what to do with a leaking split.

    Returns:
        The clips, and what the audit says of them.

    Raises:
        DataError: nothing to read, or the data's own split has a recording on both sides.
    """
    if find_spec("sklearn") is None:  # told before the work, not after
        raise ModuleNotFoundError(name="sklearn")
    listed = list_clips(data)
    if options.labels is not None:
        listed = apply_labels(listed, options.labels)
    if options.leaks == "regroup":
        clips = tuple(replace(clip, fold=None, part=None) for clip in listed.clips)
        listed = replace(listed, clips=clips)
    decoded = decode(
        join_copies(listed),
        sample_rate=config.sample_rate if config else SAMPLE_RATE,
        progress=progress,
        training=config is None,
    )
    findings = find_shared(
        decoded.clips,
        decoded.waveforms,
        sample_rate=decoded.sample_rate,
        progress=progress,
        cache=cache_folder(),
    )
    return regrouped(decoded, findings, options.leaks), summarise(decoded.clips, findings)


def class_names(clips: Sequence[Clip]) -> tuple[str, ...]:
    """Labels that occur, sorted, but for negatives: the classes of a network of these clips."""
    return tuple(sorted({clip.label for clip in clips if not is_negative(clip.label)}))


def hold_out(
    decoded: DecodedDataset, indices: Sequence[int], settings: TrainingConfig
) -> tuple[list[int], list[int]]:
    """Part some clips into those to learn from and those that choose the best epoch."""
    if settings.validation_share == 0:
        return list(indices), []
    chosen = [decoded.clips[i] for i in indices]
    rest, held = split(chosen, share=settings.validation_share, seed=settings.seed)
    return [indices[i] for i in rest], [indices[i] for i in held]


def check_learnable(
    decoded: DecodedDataset, parts: Sequence[Sequence[int]], settings: TrainingConfig
) -> None:
    """Raise what trainings on these parts would raise, before anything is thrown away for them.

    Args:
        decoded: all clips.
        parts: the clips that each training learns from.
        settings: of the trainings.

    Raises:
        UsageError: no such device.
        DataError: too little to choose the best epoch by.
    """
    from stapes.training import check_device

    check_device(settings)
    for part in parts:
        hold_out(decoded, part, settings)


def learn(
    decoded: DecodedDataset,
    indices: Sequence[int],
    *,
    config: ModelConfig,
    settings: TrainingConfig,
    state_path: Path | None = None,
    on_step: "Callable[[Step], None] | None" = None,
) -> "State":
    """Train on some of the clips; a grouped part of them chooses the best epoch if asked to.

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

    rest, held = hold_out(decoded, indices, settings)
    return fit(
        config,
        settings,
        training=_examples(decoded, rest, config.classes),
        validation=_examples(decoded, held, config.classes) if held else None,
        state_path=state_path,
        on_step=on_step,
    )


def _examples(
    decoded: DecodedDataset, indices: Sequence[int], classes: Sequence[str]
) -> "Examples":
    from stapes.generator import Examples

    clips, waveforms = decoded.pick(indices)
    targets = targets_of(clips, classes).tolist()
    return Examples([c.title for c in clips], waveforms, targets, [c.source for c in clips])


def about(
    decoded: DecodedDataset,
    training: Sequence[int],
    state: "State",
    preset: str,
    settings: TrainingConfig,
    *,
    judged: Sequence[int] = (),
) -> dict[str, Any]:
    """What a model remembers of its training; the same for the same training.

    Clips that it was ``judged`` on, and did not learn from, set its temperature and thresholds.
    """
    clips, waveforms = decoded.pick(training)
    n_clips = Counter(clip.label for clip in clips)
    return {
        "version": __version__,
        "preset": preset,
        "settings": as_dict(settings),
        "best_epoch": state.best_epoch,
        "clips": {label: n_clips[label] for label in class_names(clips)},
        "sources": len({clip.source for clip in clips}),
        "seconds_of_audio": round(sum(map(len, waveforms)) / decoded.sample_rate, 1),
        "recordings": _marks(waveforms),
        "calibrated_on": _marks(decoded.pick(judged)[1]),
    }


def _marks(waveforms: Sequence[Waveform]) -> str:
    return "".join(sorted({mark(waveform) for waveform in waveforms}))


def profile_of(decoded: DecodedDataset) -> TrainingProfile:
    """What recordings are like, such as those that a model learns from; silent ones like none."""
    heard = [i for i, waveform in enumerate(decoded.waveforms) if not is_constant(waveform)]
    chosen = decoded.only(heard) if heard else decoded
    return describe(
        [
            profile(waveform, sample_rate=decoded.sample_rate, sample_rate_hz=file_sample_rate)
            for waveform, file_sample_rate in zip(
                chosen.waveforms, chosen.file_sample_rates, strict=True
            )
        ]
    )


def provenance(
    kind: str,
    data: str | Path,
    decoded: DecodedDataset,
    foreign: DecodedDataset,
    *,
    started: float,
) -> dict[str, Any]:
    """What the results of every protocol say of themselves and of inputs left out."""
    examples: dict[str, list[str]] = {label: [] for label in class_names(decoded.clips)}
    for clip in decoded.clips:
        if len(examples.get(clip.label, range(N_EXAMPLES))) < N_EXAMPLES:
            examples[clip.label].append(clip.title)
    return {
        "kind": kind,
        "data": os.path.abspath(data),
        "seconds": time.monotonic() - started,
        "version": __version__,
        "examples": examples,
    } | left_out(decoded, foreign)


def left_out(*read: DecodedDataset) -> dict[str, Any]:
    """What the results of a command say of inputs it could not use or trust."""
    skipped = [{"name": s.name, "reason": s.reason} for part in read for s in part.skipped]
    return {"skipped": skipped, "warnings": [w for part in read for w in part.warnings]}


def step_reporter(
    progress: Progress, task: str, *, done: int = 0, of: int = 1, note: str = ""
) -> "Callable[[Step], None]":
    """Turns training steps into progress.

    Args:
        progress: told of every step.
        task: what it is called.
        done: trainings of the same task before this one.
        of: trainings of the task in all.
        note: which of them this is.
    """

    def report(step: "Step") -> None:
        told = (
            f"{note}loss {step.loss:.3f}, accuracy {step.accuracy:.0%},"
            f" {step.segments_per_second:,.0f} segments/s"
        )
        progress(task, done * step.n_steps + step.step, of * step.n_steps, told)

    return report
