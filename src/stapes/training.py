"""One loop that reads from top to bottom: batches -> network -> loss -> step -> average.

Everything random is a function of the seed and the step, and the whole state is saved at
every epoch and when asked to end, so a resumed run ends bit for bit as if never interrupted.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stapes import __version__, checkpoint, native
from stapes.arrays import fetch, put
from stapes.batches import Batch, batches
from stapes.checkpoint import Tensors
from stapes.config import ModelConfig, TrainingConfig, as_dict
from stapes.engine import FoldedNetwork, probabilities
from stapes.errors import StopRequestedError, TrainingError, UsageError
from stapes.files import write_bytes
from stapes.generator import Examples
from stapes.inference import segment_outputs
from stapes.interruption import Interruption
from stapes.model import Network
from stapes.segments import passes_gate
from stapes.stepping import Stepper
from stapes.threads import thread_count


@dataclass(slots=True)
class State:
    """Where training stands; all of it is saved but ``earlier_seconds``.

    These are the part of ``seconds`` that an interrupted run spent.
    """

    stepper: Stepper
    step: int = 0
    loss_sum: float = 0.0
    n_correct: float = 0.0
    seconds: float = 0.0
    earlier_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best: Tensors = field(default_factory=dict)
    best_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What a progress bar wants to know after each step."""

    step: int
    n_steps: int
    loss: float
    accuracy: float
    segments_per_second: float


def fit(
    config: ModelConfig,
    settings: TrainingConfig,
    *,
    training: Examples,
    validation: Examples | None,
    state_path: Path | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> State:
    """Train a network; the weights of the best epoch are ``best`` of what comes back.

    Args:
        config: the network.
        settings: how to train it.
        training: what to learn from.
        validation: what chooses the best epoch; without it the last epoch is the best.
        state_path: where the state is saved, and resumed from if it exists.
        on_step: called after every step.

    Raises:
        TrainingError: the loss is not finite, or the GPU's memory is full; the state of the last
            good epoch is saved.
        StopRequestedError: SIGINT or SIGTERM came; the state of the last step is saved.
        UsageError: a saved state belongs to another training.
    """
    with _told_of_memory(settings):
        state = _begin(config, settings)
        identity = _identity(config, settings, training, validation)
        if state_path is not None and state_path.exists():
            _restore(state, state_path, identity)
            if _finished(state, settings):
                return state
    known, foreign = training.of_classes(), training.of_none()
    heard = validation.of_classes() if validation is not None else None
    with _told_of_memory(settings):
        coming = batches(config, settings, known, foreign, first_step=state.step)
    names = [*known.names, *foreign.names]
    began = time.monotonic() - state.seconds
    with Interruption() as interruption, _told_of_memory(settings):
        for batch in coming:
            _take_step(state, settings, batch, names=names)
            state.seconds = time.monotonic() - began
            epoch_ends = state.step % settings.steps_per_epoch == 0
            if epoch_ends:
                _end_epoch(state, settings, heard)
            if on_step is not None:
                on_step(_report(state, settings))
            stop = interruption.number
            if state_path is not None and (epoch_ends or stop):
                _save(state, state_path, identity)
            if stop:
                saved = ", which is kept for --resume" if state_path is not None else ""
                raise StopRequestedError(stop, f"interrupted after step {state.step}{saved}")
            if _finished(state, settings):
                break
    return state


@contextmanager
def _told_of_memory(settings: TrainingConfig) -> Iterator[None]:
    """Turn a GPU without memory left into an error that says what to try."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # of PyTorch, which need not be there
            raise
        n = settings.batch_size
        raise TrainingError(
            f"no GPU memory left with a batch size of {n}; try --batch-size {max(n // 2, 2)}"
        ) from error


def learning_rate(step: int, settings: TrainingConfig) -> float:
    """One cycle: a linear rise over the first quarter, then half a cosine down to zero."""
    done = (step + 1) / settings.n_steps
    if done < 0.25:
        return settings.learning_rate * done / 0.25
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - 0.25) / 0.75))


def averaging_pace(step: int, settings: TrainingConfig) -> float:
    """How far the averaged weights move towards the current ones: faster at the start.

    The decay at step n is min(averaging, (1 + n) / (10 + n)), so the first steps are forgotten.
    """
    return 1 - min(settings.averaging, (1 + step) / (10 + step))


def check_device(settings: TrainingConfig) -> None:
    """Raise UsageError if PyTorch cannot train where it was asked to."""
    if settings.device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        raise UsageError("--device is cuda, and PyTorch finds none here: give --device cpu")


def _begin(config: ModelConfig, settings: TrainingConfig) -> State:
    check_device(settings)
    with_none, low_cut = settings.n_negatives > 0, settings.low_cut
    network = Network(config, seed=settings.seed, with_none=with_none, low_cut=low_cut)
    decay = settings.weight_decay
    return State(Stepper(network, weight_decay=decay, device=settings.device))


def _take_step(
    state: State, settings: TrainingConfig, batch: Batch, *, names: Sequence[str]
) -> None:
    """One gradient step; a loss that is not finite is an error that names the clips."""
    loss, right = state.stepper(
        batch,
        number=state.step + 1,
        learning_rate=learning_rate(state.step, settings),
        pace=averaging_pace(state.step, settings),
    )
    state.step += 1
    if not math.isfinite(loss):
        clips = ", ".join(sorted({names[i] for i in batch.clips}))
        raise TrainingError(f"the loss is {loss} at step {state.step}; its clips: {clips}")
    state.loss_sum += loss
    state.n_correct += right


def _end_epoch(state: State, settings: TrainingConfig, validation: Examples | None) -> None:
    """Measure the averaged weights, note the epoch, and keep it if it is the best."""
    epoch = state.step // settings.steps_per_epoch
    row = {
        "epoch": epoch,
        "step": state.step,
        "learning_rate": learning_rate(state.step - 1, settings),
        "loss": state.loss_sum / settings.steps_per_epoch,
        "accuracy": state.n_correct / settings.steps_per_epoch,
    }
    average = state.stepper.average
    tensors = {k: fetch(v).copy() for k, v in average.tensors().items()}
    if validation is not None:
        row |= validate(FoldedNetwork.fold(average.config, tensors), validation)
    best = min((r.get("validation_loss", math.inf) for r in state.history), default=math.inf)
    if validation is None or row["validation_loss"] < best:
        state.best, state.best_epoch = tensors, epoch
    state.history.append(row | {"seconds": round(state.seconds, 3)})
    state.loss_sum = state.n_correct = 0.0


def validate(network: FoldedNetwork, validation: Examples) -> dict[str, float]:
    """Loss and accuracy over the segments, and accuracy over the clips, of unseen sources."""
    config = network.config
    losses, right, clips_right = [], [], []
    for waveform, target in zip(validation.waveforms, validation.targets, strict=True):
        outputs = segment_outputs(network, [waveform], hop_length=config.hop_length)
        heard = passes_gate(outputs.peaks, gate=config.gate)
        logits, none = outputs.logits[heard], outputs.none[heard]
        learnt = probabilities(logits, none)[:, target]  # [N], as in training: "none" has a share
        losses.append(-np.log(np.maximum(learnt, 1e-12)))
        right.append(probabilities(logits).argmax(axis=1) == target)
        clips_right.append(outputs.vote(gate=config.gate).argmax() == target)
    return {
        "validation_loss": float(np.concatenate(losses).mean()),
        "validation_accuracy": float(np.concatenate(right).mean()),
        "validation_clip_accuracy": float(np.mean(clips_right)),
    }


def _finished(state: State, settings: TrainingConfig) -> bool:
    """Whether the last epoch is done, or no better one has come for too long."""
    epoch, part = divmod(state.step, settings.steps_per_epoch)
    waited = 0 < settings.patience <= epoch - state.best_epoch
    return part == 0 and (epoch >= settings.epochs or waited)


def _report(state: State, settings: TrainingConfig) -> Step:
    in_epoch = (state.step - 1) % settings.steps_per_epoch + 1
    last = state.history[-1] if in_epoch == settings.steps_per_epoch else None
    return Step(
        step=state.step,
        n_steps=settings.n_steps,
        loss=last["loss"] if last else state.loss_sum / in_epoch,
        accuracy=last["accuracy"] if last else state.n_correct / in_epoch,
        segments_per_second=state.step * settings.batch_size / max(state.seconds, 1e-9),
    )


def _identity(
    config: ModelConfig,
    settings: TrainingConfig,
    training: Examples,
    validation: Examples | None,
) -> dict[str, Any]:
    """What must be the same for a resumed training to end like one never interrupted."""
    return {
        "version": __version__,
        "threads": thread_count(),
        "kernels": native.kernels(),
        "data": _digest(training),
        "validation": _digest(validation) if validation else "",
        **as_dict(config),
        **as_dict(settings),
    }


def _digest(examples: Examples) -> str:
    """Changes with any name, source, sample or target."""
    digest = hashlib.sha256()
    columns = examples.names, examples.sources, examples.targets, examples.waveforms
    for *told, waveform in zip(*columns, strict=True):
        row = "\0".join(map(str, [*told, len(waveform), ""]))
        digest.update(row.encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(waveform).tobytes())
    return digest.hexdigest()[:16]


def _save(state: State, path: Path, identity: dict[str, Any]) -> None:
    tensors = {f"best.{k}": v for k, v in state.best.items()}
    tensors |= {k: fetch(v) for k, v in state.stepper.tensors().items()}
    numbers = {k: getattr(state, k) for k in _NUMBERS}
    write_bytes(path, checkpoint.pack(tensors, {"identity": identity, "state": numbers}))


_DIGESTS = {"data": "recordings to learn from", "validation": "recordings to choose by"}
"""What of the identity is a digest, in words."""

_NUMBERS = ("step", "loss_sum", "n_correct", "seconds", "history", "best_epoch")


def _restore(state: State, path: Path, identity: dict[str, Any]) -> None:
    tensors, metadata = checkpoint.unpack(path.read_bytes(), name=str(path))
    found, wanted = metadata["identity"], json.loads(json.dumps(identity))
    differing = [k for k in wanted if found.get(k) != wanted[k]]
    if differing:
        told = ", ".join(
            f"the {_DIGESTS[k]} differ"
            if k in _DIGESTS
            else f"{k} was {found.get(k)}, is {wanted[k]}"
            for k in differing
        )
        raise UsageError(f"{path}: cannot resume, {told}; use the same or a new --out folder")
    for name in _NUMBERS:
        setattr(state, name, metadata["state"][name])
    state.earlier_seconds = state.seconds
    state.best = _part(tensors, "best.")
    for name, array in state.stepper.tensors().items():
        array[:] = put(tensors[name], identity["device"])


def best_of(path: Path) -> tuple[Tensors, int]:
    """Weights and number of the best epoch in a saved state; no weights before the first."""
    if not path.exists():
        return {}, 0
    tensors, metadata = checkpoint.unpack(path.read_bytes(), name=str(path))
    return _part(tensors, "best."), metadata["state"]["best_epoch"]


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
