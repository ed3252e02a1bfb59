"""Batched augmentation: mixing between classes, microphones' colours, noise. Blind to labels.

All but the mixing happens on the spectrum, so that a batch costs two Fourier transforms.
"""

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


def augment(
    segments: Tensor,
    targets: Tensor,
    *,
    config: ModelConfig,
    settings: TrainingConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """What the network learns from: normalised, mixed, coloured and normalised again.

    In the end each segment gets a random level, as far from RMS 1 as levels in steps leave it.

    What the settings turn off is left out.

    Args:
        segments: [B, T], as recorded.
        targets: [B, n_classes], summing to 1.
        config: whether segments are normalised.
        settings: how much of everything.
        rng: of every random choice.

    Returns:
        [B, T] and [B, n_classes].
    """
    if config.normalise:
        segments = normalise(segments)
    if settings.mixing > 0:
        segments, targets = mix(segments, targets, alpha=settings.mixing, rng=rng)
    if settings.equaliser_db > 0:
        noise_db = (QUIETEST_NOISE_DB, settings.noise_db)
        segments = colour(segments, equaliser_db=settings.equaliser_db, noise_db=noise_db, rng=rng)
    if config.normalise:
        level_db = rng.uniform(-LEVEL_STEP_DB / 2, LEVEL_STEP_DB / 2, (len(segments), 1))
        segments = normalise(segments) * _tensor(10 ** (level_db / 20)).to(segments.device)
    return segments, targets


def normalise(segments: Tensor) -> Tensor:
    """:func:`stapes.segments.normalise` on tensors: [B, T] -> [B, T] of mean 0 and RMS 1."""
    centred = segments - segments.mean(dim=1, keepdim=True)
    rms = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred / rms.clamp_min(SILENCE_RMS)


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
    share = torch.from_numpy(rng.beta(alpha, alpha, (len(segments), 1)).astype(np.float32))
    share = share.to(segments.device)
    partner = torch.from_numpy(rng.permutation(len(segments))).to(segments.device)
    mixed = share * segments + (1 - share) * segments[partner]
    power = torch.sqrt(share**2 + (1 - share) ** 2)
    return mixed / power, share * targets + (1 - share) * targets[partner]


def colour(
    segments: Tensor,
    *,
    equaliser_db: float,
    noise_db: tuple[float, float],
    rng: np.random.Generator,
) -> Tensor:
    """Another microphone in another room: a smooth random response, then coloured noise.

    Args:
        segments: [B, T], normalised.
        equaliser_db: standard deviation of the response at its control points.
        noise_db: range of the noise's level against the segment's, uniform in dB.
        rng: of every random choice.

    Returns:
        [B, T], not normalised.
    """
    n_batch, length = segments.shape
    spectrum = torch.fft.rfft(segments)  # [B, T / 2 + 1]
    n_bins = spectrum.shape[1]
    points = rng.normal(0.0, equaliser_db, (n_batch, N_CONTROL_POINTS))
    level = 10 ** (rng.uniform(*noise_db, (n_batch, 1)) / 20) * np.sqrt(6.0 * length)
    noise = rng.random((n_batch, n_bins, 2), np.float32) - np.float32(0.5)
    colours = _response(_noise_colours(n_batch, rng), n_bins)
    colours *= _tensor(level) / colours.square().mean(dim=1, keepdim=True).sqrt()
    # Uniform parts of width 1 have variance 1/12; white noise of RMS 1 has bins of power T.
    noisy = torch.view_as_complex(torch.from_numpy(noise)) * colours
    coloured = spectrum * _response(points, n_bins).to(segments.device)
    waveforms: Tensor = torch.fft.irfft(coloured + noisy.to(segments.device), n=length)
    return waveforms


def _noise_colours(n_batch: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Control points in dB of rumble, hiss and what lies between: [B, P]."""
    tilt = rng.uniform(-30.0, 6.0, (n_batch, 1)) * np.linspace(0.0, 1.0, N_CONTROL_POINTS)
    return tilt + rng.normal(0.0, 6.0, (n_batch, N_CONTROL_POINTS))


def _response(points_db: NDArray[np.float64], n_bins: int) -> Tensor:
    """Amplitude response from control points in dB: [B, P] -> [B, n_bins], linear in between."""
    share = np.maximum(np.arange(n_bins) / (n_bins - 1), LOWEST_SHARE)  # of the highest frequency
    position = (N_CONTROL_POINTS - 1) * (1 - np.log(share) / np.log(LOWEST_SHARE))
    distance = np.abs(position - np.arange(N_CONTROL_POINTS)[:, None])
    weights = np.maximum(1 - distance, 0)  # [P, n_bins]
    response: Tensor = torch.exp(_tensor(points_db) @ _tensor(weights) * (math.log(10) / 20))
    return response


def _tensor(array: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
