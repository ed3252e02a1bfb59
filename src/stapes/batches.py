"""What a network learns from: labelled segments and sounds of none of the classes, varied.

Batch number n is a function of the seed and n alone, and is made while the one before is learnt
from.
"""

import itertools
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stapes import augment, negatives
from stapes.config import ModelConfig, TrainingConfig
from stapes.generator import SegmentGenerator
from stapes.segments import Waveform, normalise


@dataclass(frozen=True, slots=True)
class Examples:
    """Clips to learn from or to be measured on.

    Attributes:
        names: what errors call each clip.
        waveforms: one [T] a clip.
        targets: class index of each clip; -1 for what is none of the classes.
    """

    names: Sequence[str]
    waveforms: Sequence[Waveform]
    targets: Sequence[int]

    def of_classes(self) -> "Examples":
        """The clips that are of a class."""
        return self._pick([i for i, target in enumerate(self.targets) if target >= 0])

    def of_none(self) -> "Examples":
        """The clips that are none of the classes."""
        return self._pick([i for i, target in enumerate(self.targets) if target < 0])

    def _pick(self, rows: Sequence[int]) -> "Examples":
        return Examples(
            [self.names[i] for i in rows],
            [self.waveforms[i] for i in rows],
            [self.targets[i] for i in rows],
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Augmented segments [B, T], soft targets [B, n_classes (+ 1)] and the clips they came from."""

    segments: Tensor
    targets: Tensor
    clips: NDArray[np.int64]


def batches(
    config: ModelConfig,
    settings: TrainingConfig,
    known: Examples,
    foreign: Examples,
    *,
    first_step: int,
) -> Generator[Batch, None, None]:
    """Batches for ever from a given step, each made while the one before is learnt from.

    What is none of the classes is made up, but for a half that is the user's if there is any.
    """
    of_classes = _generator(config, settings, known)
    of_none = _generator(config, settings, foreign) if foreign.names else None
    n_none = settings.n_negatives
    n_own = n_none // 2 if of_none is not None else 0

    def make(step: int) -> Batch:
        rng = np.random.default_rng([settings.seed, step, 1])
        drawn = of_classes.batch(step, batch_size=settings.batch_size - n_none)
        parts, clips = [drawn.segments], [drawn.clips]
        if n_none:
            models = normalise(drawn.segments[: n_none - n_own])
            parts.append(negatives.make(models, sample_rate=config.sample_rate, rng=rng))
        if n_own and of_none is not None:
            own = of_none.batch(step, batch_size=n_own)
            parts.append(own.segments)
            clips.append(own.clips + len(known.names))
        segments = torch.from_numpy(np.concatenate(parts)).to(settings.device)
        none = np.full(n_none, len(config.classes))
        targets = torch.from_numpy(np.concatenate([drawn.targets, none])).to(settings.device)
        one_hot = F.one_hot(targets, len(config.classes) + (n_none > 0)).float()
        augmented = augment.augment(segments, one_hot, config=config, settings=settings, rng=rng)
        return Batch(*augmented, np.concatenate(clips))

    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(make, first_step)
        for step in itertools.count(first_step + 1):
            batch = coming.result()
            coming = ahead.submit(make, step)
            yield batch


def _generator(
    config: ModelConfig, settings: TrainingConfig, examples: Examples
) -> SegmentGenerator:
    return SegmentGenerator(
        examples.waveforms,
        [max(target, 0) for target in examples.targets],
        segment_length=config.segment_length,
        gate=config.gate,
        speed=settings.speed,
        seed=settings.seed,
    )
