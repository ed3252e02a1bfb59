"""Batched augmentation: mixing between classes, microphones' colours, noise. Blind to labels."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stapes.config import ModelConfig, TrainingConfig
from stapes.levels import LEVEL_STEP_DB
from stapes.segments import SILENCE_RMS

N_CONTROL_POINTS = 8
"""Points of the random frequency response, evenly spaced in log frequency."""

LOWEST_SHARE = 1 / 256
"""Lowest control point as a share of half the sample rate (31 Hz at 16 kHz)."""

QUIETEST_NOISE_DB = -50.0
"""Lower end of the added noise's level against the segment."""

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
        if settings.equaliser_db > 0:
            self._noises = Noises(config.segment_length, device=settings.device, rng=rng)
            n_bins = config.segment_length // 2 + 1
            self._weights = response_weights(n_bins).to(settings.device)

    def __call__(
        self, segments: Tensor, targets: Tensor, *, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Vary one batch.

        Args:
            segments: [B, T], as recorded; they are overwritten.
            targets: [B, n_classes], summing to 1.
            rng: of every random choice.

        Returns:
            [B, T] and [B, n_classes].
        """
        settings, n_batch = self._settings, len(segments)
        if self._config.normalise:
            normalise_(segments)
        if settings.mixing > 0:
            segments, targets = mix(segments, targets, alpha=settings.mixing, rng=rng)
        if settings.equaliser_db > 0:
            points_db = rng.normal(0.0, settings.equaliser_db, (n_batch, N_CONTROL_POINTS))
            segments = equalise(segments, points_db, weights=self._weights)
            noise_db = rng.uniform(QUIETEST_NOISE_DB, settings.noise_db, n_batch)
            noises = self._noises.draw(n_batch, rng)
            segments.addcmul_(noises, _column(_amplitude(noise_db), segments))
        if self._config.normalise:
            level_db = rng.uniform(-LEVEL_STEP_DB / 2, LEVEL_STEP_DB / 2, n_batch)
            normalise_(segments, rms=_column(_amplitude(level_db), segments))
        return segments, targets


def normalise_(segments: Tensor, *, rms: Tensor | float = 1.0) -> Tensor:
    """:func:`stapes.segments.normalise` on tensors, in place: [B, T] -> [B, T] of mean 0.

    Args:
        segments: [B, T].
        rms: of the result, for all or for each [B, 1].
    """
    segments -= segments.mean(dim=1, keepdim=True)
    norm = torch.linalg.vector_norm(segments, dim=1, keepdim=True)
    return segments.mul_(rms / (norm / math.sqrt(segments.shape[1])).clamp_min(SILENCE_RMS))


def mix(
    segments: Tensor, targets: Tensor, *, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Between-class mixing: each segment with another of the batch, targets in proportion.

    Segments have RMS 1, so the shares are weighted as amplitudes that keep the power:
    x = (r x_1 + (1 - r) x_2) / sqrt(r^2 + (1 - r)^2), r ~ Beta(alpha, alpha)
    (Tokozume et al. 2018, https://arxiv.org/abs/1711.10282, with levels already equal).

    Args:
        segments: [B, T], normalised.
        targets: [B, n_classes], summing to 1.
        alpha: of the Beta distribution, above 0; 1 is uniform.
        rng: of every random choice.

    Returns:
        [B, T] and [B, n_classes].
    """
    share = _column(rng.beta(alpha, alpha, len(segments)), segments)
    partner = torch.from_numpy(rng.permutation(len(segments))).to(segments.device)
    power = torch.sqrt(share**2 + (1 - share) ** 2)
    mixed = segments.index_select(0, partner).mul_((1 - share) / power)
    mixed.addcmul_(segments, share / power)
    return mixed, share * targets + (1 - share) * targets[partner]


def equalise(segments: Tensor, points_db: NDArray[np.float64], *, weights: Tensor) -> Tensor:
    """Another microphone in another room: a smooth frequency response for each segment.

    Args:
        segments: [B, T].
        points_db: the response at its control points [B, P].
        weights: :func:`response_weights` of T // 2 + 1 frequencies.

    Returns:
        [B, T], not normalised.
    """
    spectrum = torch.fft.rfft(segments)  # [B, T // 2 + 1]
    spectrum *= responses(points_db, weights)
    waveforms: Tensor = torch.fft.irfft(spectrum, n=segments.shape[1])
    return waveforms


class Noises:
    """Coloured noises, made once and long enough that random pieces of them differ."""

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
        spectrum = torch.view_as_complex(torch.from_numpy(parts))
        points_db = noise_colours(self._n_noises, rng)
        spectrum *= responses(points_db, response_weights(length + 1))
        waveforms = torch.fft.irfft(spectrum, n=2 * length)
        waveforms /= waveforms.square().mean(dim=1, keepdim=True).sqrt()
        self._flat = waveforms.flatten().to(device)

    def draw(self, n: int, rng: np.random.Generator) -> Tensor:
        """Random pieces of random noises, of RMS about 1: [n, length]."""
        rows = rng.integers(self._n_noises, size=n)
        starts = 2 * self._length * rows + rng.integers(self._length + 1, size=n)
        all_pieces: Tensor = self._flat.unfold(0, self._length, 1)
        return all_pieces.index_select(0, torch.from_numpy(starts).to(self._flat.device))


def noise_colours(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Control points in dB of rumble, hiss and what lies between: [n, P]."""
    tilt = rng.uniform(-30.0, 6.0, (n, 1)) * np.linspace(0.0, 1.0, N_CONTROL_POINTS)
    return tilt + rng.normal(0.0, 6.0, (n, N_CONTROL_POINTS))


def response_weights(n_bins: int) -> Tensor:
    """What control points in dB have to be multiplied by: [P, n_bins], of :func:`responses`.

    The response in dB is linear in log frequency between its points.
    """
    share = np.maximum(np.arange(n_bins) / (n_bins - 1), LOWEST_SHARE)  # of the highest frequency
    position = (N_CONTROL_POINTS - 1) * (1 - np.log(share) / np.log(LOWEST_SHARE))
    distance = np.abs(position - np.arange(N_CONTROL_POINTS)[:, None])
    weights = np.maximum(1 - distance, 0) * (math.log2(10) / 20)
    return torch.from_numpy(weights.astype(np.float32))


def responses(points_db: NDArray[np.float64], weights: Tensor) -> Tensor:
    """Amplitude responses from control points in dB: [B, P] -> [B, n_bins]."""
    points = torch.from_numpy(points_db.astype(np.float32)).to(weights.device)
    amplitudes: Tensor = torch.exp2_(points @ weights)
    return amplitudes


def _amplitude(level_db: NDArray[np.float64]) -> NDArray[np.float64]:
    factors: NDArray[np.float64] = 10 ** (level_db / 20)
    return factors


def _column(values: NDArray[np.float64], like: Tensor) -> Tensor:
    """[B] -> [B, 1] in the type and on the device of another tensor."""
    return torch.from_numpy(values[:, None]).to(like)
