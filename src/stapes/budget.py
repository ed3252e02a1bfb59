"""What a given time buys: a preset and its epochs, by the speed of this machine."""

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stapes.config import ModelConfig, TrainingConfig, epochs_for, preset_sizes
from stapes.dataset import DecodedDataset
from stapes.errors import UsageError
from stapes.experiment import class_names, learn
from stapes.progress import Progress

RUNGS = (
    ("classic", 1 / 6),
    ("classic", 1 / 2),
    ("classic", 1.0),
    ("small", 0.6),
    ("small", 1.0),
    ("large", 1.0),
)
"""Presets and shares of their epochs in the order in which more time is spent on them."""

TRIAL_STEPS = 32
"""By which the speed of a preset is measured: those of the later half, for the first are slow. That
takes in the random choices, which are made for 16 batches at once."""

CLOSING_SECONDS, CLOSING_SHARE = 3.0, 0.002
"""For measuring the model, the simple rules beside it and the report: seconds, and more of them as
a share of the length of all recordings."""

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_budget(text: str | float) -> float:
    """Seconds of a time such as 60s, 5m or 1h; of a number it is that many.

    >>> parse_budget("90"), parse_budget("1.5m"), parse_budget("1h")
    (90.0, 90.0, 3600.0)

    Raises:
        UsageError: no time, or one that is not above 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(s|m|min|h)?\s*", str(text))
    seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if not 0 < seconds < math.inf:
        raise UsageError(f"budget is {text!r}: give a time such as 60s, 5m or 1h")
    return seconds


@dataclass(frozen=True, slots=True)
class Rung:
    """A step of the ladder.

    Attributes:
        preset: of the network.
        epochs: to train it.
        seconds: that this takes here.
    """

    preset: str
    epochs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What a budget buys.

    Attributes:
        chosen: the highest step that fits, or the lowest of all.
        more: the steps above it.
        budget_seconds: what was given.
    """

    chosen: Rung
    more: tuple[Rung, ...]
    budget_seconds: float

    def words(self) -> str:
        """What was chosen, and what more time would buy."""
        told = f"{self.budget_seconds:.0f} s buy {_words(self.chosen)}"
        if self.chosen.seconds > self.budget_seconds:
            told += ", which takes longer, but nothing is shorter"
        if not self.more:
            return f"{told}; more time buys nothing better"
        return f"{told}; more time would buy " + ", ".join(map(_words, self.more))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "seconds": self.budget_seconds,
            "preset": self.chosen.preset,
            "epochs": self.chosen.epochs,
            "expected_seconds": round(self.chosen.seconds, 1),
            "words": self.words(),
        }


def _words(rung: Rung) -> str:
    return f"{rung.preset} with {rung.epochs} epochs ({rung.seconds:.0f} s)"


def choose(
    decoded: DecodedDataset,
    training: Sequence[int],
    *,
    settings: TrainingConfig,
    budget_seconds: float,
    spent_seconds: float,
    progress: Progress,
) -> Choice:
    """Try a few steps of each preset on these recordings, and climb as high as the time allows.

    Args:
        decoded: all clips.
        training: those to learn from.
        settings: of the training, but for the epochs.
        budget_seconds: for everything.
        spent_seconds: of these, before.
        progress: told which preset is tried.
    """
    began = time.monotonic()
    classes, speeds = class_names(decoded.clips), dict[str, tuple[float, float]]()
    presets = list(dict.fromkeys(preset for preset, _ in RUNGS))
    trial = replace(settings, epochs=1, steps_per_epoch=TRIAL_STEPS, validation_share=0, patience=0)
    for i, preset in enumerate(presets):
        progress("timing the presets", i, len(presets), preset)
        config = ModelConfig(classes, **preset_sizes(preset))
        speeds[preset] = _speed(decoded, training, config, trial)
    sound_seconds = sum(map(len, decoded.waveforms)) / decoded.sample_rate
    closing = CLOSING_SECONDS + CLOSING_SHARE * sound_seconds
    fixed = spent_seconds + time.monotonic() - began + closing
    rungs = []
    for preset, share in RUNGS:
        epochs = max(round(share * epochs_for(preset, n_classes=len(classes))), 1)
        ready, step = speeds[preset]
        seconds = fixed + ready + epochs * settings.steps_per_epoch * step
        rungs.append(Rung(preset, epochs, seconds))
    fitting = [i for i, rung in enumerate(rungs) if rung.seconds <= budget_seconds]
    highest = fitting[-1] if fitting else 0
    choice = Choice(rungs[highest], tuple(rungs[highest + 1 :]), budget_seconds)
    progress("timing the presets", len(presets), len(presets), choice.words())
    return choice


def _speed(
    decoded: DecodedDataset, training: Sequence[int], config: ModelConfig, trial: TrainingConfig
) -> tuple[float, float]:
    """Seconds until the first step is done, and of each later one."""
    started, times = time.monotonic(), list[float]()

    def note(_: Any) -> None:
        times.append(time.monotonic())

    learn(decoded, training, config=config, settings=trial, on_step=note)
    return times[0] - started, float(np.mean(np.diff(times[(len(times) - 1) // 2 :])))
