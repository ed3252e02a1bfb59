"""What a network learns from: labelled segments and sounds of none of the classes, varied.

Batch number n is a function of the seed and n alone.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes import augment, negatives
from stapes.arrays import put
from stapes.config import ModelConfig, TrainingConfig
from stapes.generator import Draws, Examples, SegmentGenerator
from stapes.native_batches import Variations
from stapes.segments import Waveform, normalise

N_MODELS, MODEL_SAMPLES = (8, 256), 2**22
"""Fewest and most made-up sounds in stock, and samples in all if that many are not too few."""

KEPT_BYTES = 32_000_000
"""Size of the memory that is freed at the start, so that later ones are kept: below 32 MiB."""

PLANNED = 16
"""Batches whose random choices are made in one go: quicker than one by one, each after a pass of
the network, which takes the caches."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step learns from, as arrays of NumPy or, on a GPU, of PyTorch.

    Attributes:
        segments: varied [B, T].
        targets: shares that sum to 1 [B, n_classes (+ 1)].
        clips: where those come from that are not made up, by their rows [at most B].
    """

    segments: Any
    targets: Any
    clips: NDArray[np.int64]


class MadeUp:
    """Sounds of none of the classes: a carrier under an envelope, both of a stock made once."""

    def __init__(
        self, models: Waveform, *, sample_rate: int, device: str, rng: np.random.Generator
    ) -> None:
        """Make the stock.

        Args:
            models: raw segments of the classes [M, T]: as many carriers and envelopes are made.
            sample_rate: Hz.
            device: where the stock is kept.
            rng: of every random choice.
        """
        models = normalise(models)
        carriers = negatives.carriers(models, sample_rate=sample_rate, rng=rng)
        envelopes = negatives.envelopes(models, sample_rate=sample_rate, rng=rng)
        n_points, length = envelopes.shape[1], negatives.CONTROL_LENGTH
        carriers = np.pad(carriers, ((0, 0), (0, n_points * length - carriers.shape[1])))
        carriers = carriers.reshape(-1, n_points, length)
        # Twice, so that a turned envelope is a piece of it.
        stock = carriers, np.tile(envelopes, 2)[..., None]
        self._carriers, self._envelopes = (put(array, device) for array in stock)

    def choose(self, n: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
        """Any carrier, under any envelope, that begins anywhere: n of these."""
        n_carriers, n_points, _ = self._carriers.shape
        rows, others = rng.integers(n_carriers, size=(2, n)).tolist()
        places = rng.integers(n_points, size=n).tolist()
        return list(zip(rows, others, places, strict=True))

    def draw(self, chosen: Sequence[tuple[int, int, int]], *, out: Any) -> None:
        """Write what was chosen to ``out`` [n, T]."""
        n_points = self._carriers.shape[1]
        for i, (row, other, place) in enumerate(chosen):
            sound = self._carriers[row] * self._envelopes[other, place : place + n_points]
            out[i] = sound.reshape(-1)[: out.shape[1]]


def batches(
    config: ModelConfig,
    settings: TrainingConfig,
    known: Examples,
    foreign: Examples,
    *,
    first_step: int,
) -> Iterator[Batch]:
    """Batches for ever from a given step.

    What is none of the classes is made up, but for a half that is the user's if there is any.
    """
    _keep_memory()
    return _made(_Maker(config, settings, known, foreign), first_step)


def _keep_memory() -> None:
    """Have glibc keep freed memory up to twice this size, for fresh pages are slow.

    It gives back what exceeds a threshold, which follows the largest piece freed so far
    (mallopt(3), M_MMAP_THRESHOLD), up to 32 MiB.
    """
    np.empty(KEPT_BYTES, np.uint8)


def _made(maker: "_Maker", first_step: int) -> Iterator[Batch]:
    for begin in itertools.count(first_step, PLANNED):
        plans = [maker.plan(step) for step in range(begin, begin + PLANNED)]
        yield from map(maker.make, plans)


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that is chosen of one batch; the user's own negatives, if there are any."""

    known: Draws
    made_up: list[tuple[int, int, int]]
    own: Draws | None
    variations: Variations | None
    targets: NDArray[np.float32]
    clips: NDArray[np.int64]


class _Maker:
    """Plans batch number n, and makes it."""

    def __init__(
        self, config: ModelConfig, settings: TrainingConfig, known: Examples, foreign: Examples
    ) -> None:
        self._config, self._settings, self._n_known = config, settings, len(known.names)
        self._of_classes = _generator(config, settings, known)
        heard = settings.n_negatives and foreign.names
        self._of_none = _generator(config, settings, foreign) if heard else None
        rng = np.random.default_rng([settings.seed, 0, 2])
        self._augment = augment.Augmenter(config, settings, rng=rng)
        fewest, most = N_MODELS
        n_models = min(max(MODEL_SAMPLES // config.segment_length, fewest), most)
        if settings.n_negatives:
            self._made_up = MadeUp(
                self._of_classes.batch(0, batch_size=n_models).segments,
                sample_rate=config.sample_rate,
                device=settings.device,
                rng=rng,
            )

    def plan(self, step: int) -> _Plan:
        settings, n_none = self._settings, self._settings.n_negatives
        rng = np.random.default_rng([settings.seed, step, 1])
        n_own = -(-n_none // 2) if self._of_none else 0
        known = self._of_classes.choose(step, batch_size=settings.batch_size - n_none)
        made_up = self._made_up.choose(n_none - n_own, rng) if n_none else []
        clips, own = known.clips, None
        if self._of_none:
            own = self._of_none.choose(step, batch_size=n_own)
            clips = np.append(clips, own.clips + self._n_known)
        n_targets = len(self._config.classes) + (n_none > 0)
        targets = np.append(known.targets, np.full(n_none, n_targets - 1))
        one_hot = np.eye(n_targets, dtype=np.float32)[targets]
        variations, mixed = self._augment.choose(one_hot, step=step, rng=rng)
        return _Plan(known, made_up, own, variations, mixed, clips)

    def make(self, plan: _Plan) -> Batch:
        settings, n_known = self._settings, len(plan.known.clips)
        segments = self._of_classes.empty(settings.batch_size)
        n_filled = n_known + len(plan.made_up)
        self._of_classes.draw(plan.known, out=segments[:n_known])
        if plan.made_up:
            self._made_up.draw(plan.made_up, out=segments[n_known:n_filled])
        if self._of_none and plan.own:
            self._of_none.draw(plan.own, out=segments[n_filled:])
        varied = self._augment.vary(segments, plan.variations)
        return Batch(varied, put(plan.targets, settings.device), plan.clips)


def _generator(
    config: ModelConfig, settings: TrainingConfig, examples: Examples
) -> SegmentGenerator:
    return SegmentGenerator(
        examples,
        segment_length=config.segment_length,
        gate=config.gate,
        speed=settings.speed,
        seed=settings.seed,
    ).to(settings.device)
