"""Batched augmentation: mixing between classes, microphones' colours, noise. Blind to labels."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes import native, native_batches
from stapes.arrays import put
from stapes.config import QUIETEST_NOISE_DB, ModelConfig, TrainingConfig
from stapes.levels import LEVEL_STEP_DB
from stapes.native_batches import Variations
from stapes.segments import SILENCE_RMS
from stapes.threads import thread_count

N_CONTROL_POINTS = 8
"""Points of the random frequency response, evenly spaced in log frequency."""

LOWEST_SHARE = 1 / 256
"""Lowest control point as a share of half the sample rate (31 Hz at 16 kHz)."""

N_TAPS = 63
"""Of the filters that give segments their frequency responses."""

TILT_DB, RUMBLE_TILT_DB, RUMBLE_ODDS = (-30.0, 6.0), (-90.0, -30.0), 0.125
"""By how much noises rise from the lowest to the highest control point, and those of wind, traffic
and handling, and how many are of these: few teach to bear them, more cost other recordings."""

LOW_SHARE, RUMBLE_EXCESS = 300 / 8000, 4.0
"""What lies below this share of half the sample rate (300 Hz at 16 kHz) does not count in the level
of a noise, up to this factor: rumble is seldom as quiet as what else is heard."""

N_NOISES, NOISE_SAMPLES = (16, 256), 2**23
"""Fewest and most noises made for a training, and samples in all if that many are not too few."""


class Augmenter:
    """What the network learns from: normalised, mixed, coloured, at a random level.

    What the settings turn off is left out.
    """

    def __init__(
        self, config: ModelConfig, settings: TrainingConfig, *, rng: np.random.Generator
    ) -> None:
        """Make the noises that segments get random pieces of.

        Args:
            config: whether segments are normalised, and their length.
            settings: how much of everything, and the device.
            rng: of the noises.
        """
        self._config, self._settings = config, settings
        self._silence = put(np.zeros(config.segment_length, np.float32), settings.device)
        if settings.equaliser_db > 0 and config.normalise:
            self._noises = Noises(config.segment_length, device=settings.device, rng=rng)

    def choose(
        self, targets: NDArray[np.float32], *, step: int, rng: np.random.Generator
    ) -> tuple[Variations | None, NDArray[np.float32]]:
        """What is done to one batch.

        Args:
            targets: [B, n_classes], summing to 1.
            step: that learns from it, for the last ones learn from sounds that are not mixed.
            rng: of every random choice.

        Returns:
            None where the configuration does not normalise segments, which are then left as
            recorded; and the targets afterwards [B, n_classes].
        """
        settings, n_batch = self._settings, len(targets)
        if not self._config.normalise:
            return None, targets
        share, partners = mixing(n_batch, alpha=settings.mixing_at(step), rng=rng)
        taps, noise_db = np.ones((n_batch, 1)), np.full(n_batch, -math.inf)
        if settings.equaliser_db > 0:
            taps = filters(rng.normal(0.0, settings.equaliser_db, (n_batch, N_CONTROL_POINTS)))
            noise_db = rng.uniform(QUIETEST_NOISE_DB, settings.noise_db, n_batch)
        level_db = rng.uniform(-LEVEL_STEP_DB / 2, LEVEL_STEP_DB / 2, n_batch)
        power = np.sqrt(share**2 + (1 - share) ** 2)
        signs = np.ones((2, n_batch))
        if settings.polarity:  # which way round a microphone is wired
            signs = rng.choice((-1.0, 1.0), (2, n_batch))
        noise_starts = np.zeros(n_batch, np.int64)
        if settings.equaliser_db > 0:
            noise_starts = self._noises.places(n_batch, rng)
        by = Variations(
            partners,
            own=_single(signs[0] * share / power),
            other=_single(signs[1] * (1 - share) / power),
            taps=_single(taps),
            noise_starts=noise_starts,
            noise_levels=_single(_amplitude(noise_db)),
            rms=_single(_amplitude(level_db)),
        )
        part = _single(share)[:, None]
        return by, part * targets + (1 - part) * targets[partners]

    def vary(self, segments: Any, by: Variations | None) -> Any:
        """Do it: [B, T] as recorded -> [B, T]."""
        if by is None:
            return segments
        noises = self._noises.flat if self._settings.equaliser_db > 0 else self._silence
        return vary(segments, by, noises)


def vary(segments: Any, by: Variations, noises: Any) -> Any:
    """Normalise, mix, filter, add noise, bring to a level: [B, T] -> [B, T].

    By the kernels, or by PyTorch on a GPU and where they are not built.

    Args:
        segments: [B, T].
        by: what is done to each.
        noises: [M].
    """
    given = segments, by, noises
    on_processor = isinstance(segments, np.ndarray)
    if native.available() and on_processor:
        return native_batches.vary(*given, least_rms=SILENCE_RMS, n_threads=thread_count())
    from stapes import torch_batches

    varied = torch_batches.vary(*given, least_rms=SILENCE_RMS)
    return varied.numpy() if on_processor else varied


def mixing(
    n_batch: int, *, alpha: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Between-class mixing: each segment with another of the batch, targets in proportion.

    Segments have RMS 1, so the shares are weighted as amplitudes that keep the power:
    x = (r x_1 + (1 - r) x_2) / sqrt(r^2 + (1 - r)^2), r ~ Beta(alpha, alpha)
    (Tokozume et al. 2018, https://arxiv.org/abs/1711.10282, with levels already equal).

    Args:
        n_batch: segments.
        alpha: of the Beta distribution; 1 is uniform, 0 is no mixing.
        rng: of every random choice.

    Returns:
        The shares r [B] and the rows of the partners [B].
    """
    if alpha == 0:
        return np.ones(n_batch), np.arange(n_batch)
    order, partners = rng.permutation(n_batch), np.empty(n_batch, np.int64)
    partners[order] = np.roll(order, 1)  # one cycle through all: none is its own partner
    return rng.beta(alpha, alpha, n_batch), partners


def filters(points_db: NDArray[np.float64]) -> NDArray[np.float64]:
    """Another microphone in another room: a smooth frequency response for each segment.

    They are symmetric, and as short as they can be where responses are this smooth: below some
    hundred Hz they are flat.

    Args:
        points_db: the response at its control points [B, P].

    Returns:
        Taps [B, N_TAPS].
    """
    return responses(points_db, N_TAPS + 2) @ _impulses()


@lru_cache(maxsize=1)
def _impulses() -> NDArray[np.float64]:
    """The filter of each frequency alone, cut out by a window: [N_TAPS + 2, N_TAPS]."""
    turned = np.fft.fftshift(np.fft.irfft(np.eye(N_TAPS + 2)), axes=1)  # [., 2 N_TAPS + 2]
    first = N_TAPS + 1 - N_TAPS // 2
    impulses: NDArray[np.float64] = turned[:, first : first + N_TAPS]
    return impulses * np.hanning(N_TAPS + 2)[1:-1]


class Noises:
    """Coloured noises, made once and long enough that random pieces of them differ.

    Attributes:
        flat: one after the other [M].
    """

    def __init__(self, length: int, *, device: str, rng: np.random.Generator) -> None:
        """Make them.

        Args:
            length: samples of a piece; the noises are twice as long.
            device: where they are kept.
            rng: of every random choice.
        """
        self._length = length
        fewest, most = N_NOISES
        self._n_noises = min(max(NOISE_SAMPLES // (2 * length), fewest), most)
        shape = self._n_noises, length + 1
        parts = rng.random((*shape, 2), np.float32) - np.float32(0.5)
        points_db = noise_colours(self._n_noises, rng)
        spectrum = parts.view(np.complex64)[..., 0] * responses(points_db, length + 1)
        waveforms = _single(np.fft.irfft(spectrum, 2 * length))
        rms = np.sqrt(np.square(waveforms).mean(axis=1, keepdims=True))
        waveforms *= excesses(points_db, length + 1)[:, None] / rms
        self.flat = put(waveforms.ravel(), device)

    def places(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Where random pieces of random noises begin, of RMS about 1 but for rumble: [n]."""
        rows = rng.integers(self._n_noises, size=n)
        return 2 * self._length * rows + rng.integers(self._length + 1, size=n)


def noise_colours(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Control points in dB of rumble, hiss and what lies between: [n, P]."""
    rumbles = rng.random((n, 1)) < RUMBLE_ODDS
    rise = np.where(rumbles, rng.uniform(*RUMBLE_TILT_DB, (n, 1)), rng.uniform(*TILT_DB, (n, 1)))
    tilt = rise * np.linspace(0.0, 1.0, N_CONTROL_POINTS)
    return tilt + rng.normal(0.0, 6.0, (n, N_CONTROL_POINTS))


def excesses(points_db: NDArray[np.float64], n_bins: int) -> NDArray[np.float32]:
    """By how much noises are stronger than what counts of them, at most :data:`RUMBLE_EXCESS`.

    Args:
        points_db: their control points [B, P].
        n_bins: frequencies that they are made of.

    Returns:
        [B].
    """
    power = np.square(responses(points_db, n_bins), dtype=np.float64)
    counting = power[:, round(LOW_SHARE * (n_bins - 1)) :].sum(axis=1) / power.sum(axis=1)
    return _single(1 / np.maximum(np.sqrt(counting), 1 / RUMBLE_EXCESS))


@lru_cache(maxsize=4)
def response_weights(n_bins: int) -> NDArray[np.float32]:
    """What control points in dB have to be multiplied by: [P, n_bins], of :func:`responses`.

    The response in dB is linear in log frequency between its points.
    """
    share = np.maximum(np.arange(n_bins) / (n_bins - 1), LOWEST_SHARE)  # of the highest frequency
    position = (N_CONTROL_POINTS - 1) * (1 - np.log(share) / np.log(LOWEST_SHARE))
    distance = np.abs(position - np.arange(N_CONTROL_POINTS)[:, None])
    return _single(np.maximum(1 - distance, 0) * (math.log2(10) / 20))


def responses(points_db: NDArray[np.float64], n_bins: int) -> NDArray[np.float32]:
    """Amplitude responses from control points in dB: [B, P] -> [B, n_bins]."""
    amplitudes: NDArray[np.float32] = np.exp2(_single(points_db) @ response_weights(n_bins))
    return amplitudes


def _amplitude(level_db: NDArray[np.float64]) -> NDArray[np.float64]:
    factors: NDArray[np.float64] = 10 ** (level_db / 20)
    return factors


def _single(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return values.astype(np.float32, copy=False)
