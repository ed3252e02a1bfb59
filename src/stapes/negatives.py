"""Sounds of no class: the user's own, by the names of their folders, and made-up ones.

Most users have no recordings of what their classes are not, yet a network that has never heard
anything else calls everything one of them. What is made up here is what the world is full of:
rain, wind, engines, hums, clicks and crackle are noises and tones under some envelope, and
a network that learns to refuse these refuses many real ones too (outlier exposure, Hendrycks
et al. 2019, https://arxiv.org/abs/1812.04606).
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from stapes.clips import printable
from stapes.segments import Waveform, normalise

Array = NDArray[np.float32]
Array64 = NDArray[np.float64]

NEGATIVE_LABELS = frozenset({"noise", "background", "other", "silence"})
"""Labels, and so names of folders, of recordings that are none of the classes; in any case."""

LOWEST_SHARE = 1 / 256
"""Below this share of half the sample rate (31 Hz at 16 kHz) sloping noise is flat."""

TONE_HZ = (40.0, 3000.0)
"""Range of a tone's pitch in the middle of a segment, uniform in log frequency; at low rates up to
a quarter of them."""

TONE_SHARES, TONE_ODDS = (0.0, 0.5, 1.0), (0.6, 0.2, 0.2)
"""Shares of the power that is tone, the rest being noise, and how likely each is."""

CONTROL_LENGTH = 8
"""Samples that share one value of an envelope (0.5 ms at 16 kHz)."""

RATE_HZ = (1.0, 100.0)
"""Range of how often pulses come, uniform in log."""

DECAY_SECONDS = (0.001, 0.08)
"""Range of the time in which a pulse falls to 1 / e, uniform in log."""

FLOORS = (0.0, 0.02, 0.1)
"""What an envelope never falls below, as shares of its highest value."""

SWELL_HZ = (1.0, 10.0)
"""Range of the highest frequency in a swelling envelope, uniform in log."""


def is_negative(label: str) -> bool:
    """Whether a label stands for recordings that are none of the classes.

    >>> is_negative("Background"), is_negative("dog")
    (True, False)
    """
    return label.casefold() in NEGATIVE_LABELS


def beside_negatives(labels: Iterable[str]) -> str:
    """What to add where classes are missing and the reason may be a name.

    >>> beside_negatives(["dog", "noise"]), beside_negatives(["dog"])
    (' (noise is taken for none of the classes, by its name)', '')
    """
    names = sorted(set(filter(is_negative, labels)))
    verb = "is" if len(names) == 1 else "are"
    by = "its name" if len(names) == 1 else "their names"
    listed = ", ".join(map(printable, names))
    return f" ({listed} {verb} taken for none of the classes, by {by})" if names else ""


def carriers(segments: Waveform, *, sample_rate: int, rng: np.random.Generator) -> Array:
    """Noises and tones, and both together: as many as there are segments.

    Half of the noises have the spectrum of a segment, so that the spectrum alone cannot make a
    class.

    Args:
        segments: of the classes [B, T], normalised.
        sample_rate: Hz.
        rng: of every random choice.

    Returns:
        [B, T] of RMS about 1.
    """
    n_batch, length = segments.shape
    share = rng.choice(TONE_SHARES, (n_batch, 1), p=TONE_ODDS).astype(np.float32)
    sounds: Array = np.sqrt(1 - share) * normalise(_noises(segments, rng))
    toned = np.flatnonzero(share)
    tones = _tones(len(toned), length, sample_rate=sample_rate, rng=rng)
    sounds[toned] += np.sqrt(share[toned]) * normalise(tones)
    return sounds


def _noises(segments: Waveform, rng: np.random.Generator) -> Array:
    """Stationary noises, each with the spectrum of its segment or with a slope: [B, T]."""
    n_batch, length = segments.shape
    n_bins = length // 2 + 1
    share = np.maximum(np.arange(n_bins, dtype=np.float32) / (n_bins - 1), LOWEST_SHARE)
    slopes = _uniform((-2.0, 0.5), n_batch, rng).astype(np.float32)  # -12 to 3 dB an octave
    magnitudes = np.exp(slopes * np.log(share))
    own = rng.random(n_batch) < 0.5
    magnitudes[own] = np.abs(np.fft.rfft(segments[own]))
    phases = 2 * np.pi * rng.random((n_batch, n_bins), np.float32)
    spectrum = magnitudes * (np.cos(phases) + 1j * np.sin(phases))
    noises: Array = np.fft.irfft(spectrum, length).astype(np.float32, copy=False)
    return noises


def _tones(n: int, length: int, *, sample_rate: int, rng: np.random.Generator) -> Array:
    """Sines and harmonic tones of steady, gliding or trembling pitch: [n, length].

    The harmonics fall geometrically: the sum of r^(h - 1) sin(h p) over h = 1, 2, ... is
    sin(p) / (1 - 2 r cos(p) + r^2).
    """
    time = (np.arange(length) - length / 2) / sample_rate
    lowest, highest = TONE_HZ
    pitch = _log_uniform((lowest, min(highest, sample_rate / 4)), n, rng)
    glide = rng.normal(0.0, 0.5, (n, 1)) * (rng.random((n, 1)) < 0.5)  # of the pitch, a second
    rate = _uniform((3.0, 12.0), n, rng)
    depth = _uniform((0.0, 0.05), n, rng) * (rng.random((n, 1)) < 0.3)
    cycles = pitch * (time + glide / 2 * time**2)
    cycles += depth * pitch / (2 * np.pi * rate) * np.sin(2 * np.pi * rate * time)
    phases = (2 * np.pi * (cycles % 1.0)).astype(np.float32)
    fall = (_uniform((0.0, 0.97), n, rng) * (rng.random((n, 1)) < 0.75)).astype(np.float32)
    tones: Array = np.sin(phases) / (1 - 2 * fall * np.cos(phases) + fall**2)
    return tones


def envelopes(segments: Waveform, *, sample_rate: int, rng: np.random.Generator) -> Array:
    """Flat, swelling, regular or random pulses, or another segment's, each dying away.

    They go round and round: the end leads into the beginning.

    Args:
        segments: of the classes [B, T], normalised; some envelopes are theirs, so that the
            envelope alone cannot make a class.
        sample_rate: Hz.
        rng: of every random choice.

    Returns:
        [B, T / CONTROL_LENGTH], rounded up; now and then zeros, where no pulse came.
    """
    n_batch, length = segments.shape
    n_points = -(-length // CONTROL_LENGTH)
    rate = sample_rate / CONTROL_LENGTH
    kinds = np.stack(
        [
            np.ones((n_batch, n_points)),
            _swells(n_batch, n_points, rate=rate, rng=rng),
            *_pulses(n_batch, n_points, rate=rate, rng=rng),
            _magnitudes(segments, n_points)[rng.permutation(n_batch)],
        ]
    )
    points = kinds[rng.integers(len(kinds), size=n_batch), np.arange(n_batch)]
    decay = np.exp(-1 / (rate * _log_uniform(DECAY_SECONDS, n_batch, rng)))  # of one point
    # The filter y[n] = x[n] + decay y[n - 1], going round and round, so a flat envelope stays flat.
    turns = np.exp(-2j * np.pi * np.arange(n_points // 2 + 1) / n_points)
    points = np.fft.irfft(np.fft.rfft(points) / (1 - decay * turns), n_points)
    floor = rng.choice(FLOORS, (n_batch, 1)) * points.max(axis=1, keepdims=True)
    found: Array = (np.maximum(points, 0.0) + floor).astype(np.float32)
    return found


def _swells(n: int, n_points: int, *, rate: float, rng: np.random.Generator) -> Array64:
    """Exponential of slow Gaussian noise: [n, n_points]."""
    hertz = np.fft.rfftfreq(n_points, 1 / rate)
    spectrum = np.fft.rfft(rng.normal(size=(n, n_points)))
    spectrum *= (hertz > 0) & (hertz < _log_uniform(SWELL_HZ, n, rng))
    slow = np.fft.irfft(spectrum, n_points)
    slow /= np.maximum(slow.std(axis=1, keepdims=True), 1e-6)
    swells: Array64 = np.exp(_uniform((0.2, 1.2), n, rng) * slow)
    return swells


def _pulses(
    n: int, n_points: int, *, rate: float, rng: np.random.Generator
) -> tuple[Array64, Array64]:
    """Regular pulses of nearly one height, and pulses at any time of any height: [n, n_points]."""
    a_point = _log_uniform(RATE_HZ, n, rng) / rate
    turns = np.floor(a_point * np.arange(n_points + 1) + rng.random((n, 1)))
    heights = rng.normal(size=(n, n_points))
    regular = np.diff(turns) * np.exp(0.2 * heights)
    random = np.exp(heights) * (rng.random((n, n_points)) < a_point)
    return regular, random


def _magnitudes(segments: Waveform, n_points: int) -> Array64:
    """Mean magnitude around each point: [B, T] -> [B, n_points]."""
    missing = n_points * CONTROL_LENGTH - segments.shape[1]
    padded = np.pad(np.abs(segments), ((0, 0), (0, missing)))
    means: Array64 = padded.reshape(len(segments), n_points, CONTROL_LENGTH).mean(axis=2)
    return means


def _uniform(limits: tuple[float, float], n: int, rng: np.random.Generator) -> Array64:
    """[n, 1]."""
    return rng.uniform(*limits, (n, 1))


def _log_uniform(limits: tuple[float, float], n: int, rng: np.random.Generator) -> Array64:
    """[n, 1]."""
    numbers: Array64 = np.exp(_uniform((np.log(limits[0]), np.log(limits[1])), n, rng))
    return numbers
