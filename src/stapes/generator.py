"""Batches for ever: a random class, a random clip, a random start whose segment passes the gate.

Batch number n is a function of the seed and n alone, so training resumes exactly at any step
and batches may be made ahead of time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stapes.segments import Waveform, gated_intervals


@dataclass(frozen=True, slots=True)
class Batch:
    """Raw segments [B, segment_length], the class index and the clip of each [B]."""

    segments: Waveform
    targets: NDArray[np.int64]
    clips: NDArray[np.int64]


class SegmentGenerator:
    """Draws segments of labelled clips; short clips lie at a random place among zeros."""

    def __init__(
        self,
        waveforms: Sequence[Waveform],
        targets: Sequence[int],
        *,
        segment_length: int,
        gate: float,
        speed: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Find the admissible starts of every clip.

        Args:
            waveforms: one [T] a clip.
            targets: class index of each clip; every index from 0 to the highest must occur.
            segment_length: samples of a segment.
            gate: smallest peak of a segment, as a share of its clip's peak.
            speed: segments are played up to this share faster or slower (0: as recorded).
            seed: of every random choice.
        """
        self._waveforms = list(waveforms)
        self._intervals = [
            gated_intervals(w, segment_length=segment_length, gate=gate) for w in self._waveforms
        ]
        labels = np.asarray(targets)
        self._clips_of_class = [np.flatnonzero(labels == c) for c in range(labels.max() + 1)]
        self._segment_length = segment_length
        self._speed = speed
        self._seed = seed

    def batch(self, step: int, *, batch_size: int) -> Batch:
        """Batch number ``step``: the same for the same seed, whatever was drawn before."""
        rng = np.random.default_rng([self._seed, step])
        targets = rng.integers(len(self._clips_of_class), size=batch_size)
        segments = np.zeros((batch_size, self._segment_length), np.float32)
        clips = np.array([rng.choice(self._clips_of_class[target]) for target in targets])
        for segment, clip in zip(segments, clips, strict=True):
            self._draw(clip, rng, out=segment)
        return Batch(segments, targets, clips)

    def _draw(self, clip: int, rng: np.random.Generator, *, out: Waveform) -> None:
        """Fill ``out`` [segment_length] from a random admissible start of one clip."""
        waveform, length = self._waveforms[clip], len(out)
        rate = 1.0 + self._speed * rng.uniform(-1.0, 1.0)
        if len(waveform) < length:
            start = -int(rng.integers(length - len(waveform) + 1))
        else:
            start = _uniform_in(self._intervals[clip], rng)
        # Positions keep the segment's middle in place, so a loud sample seldom leaves it.
        middle = start + (length - 1) / 2
        first = middle - rate * (length - 1) / 2
        _interpolate(waveform, first, rate, out=out)


def _uniform_in(intervals: NDArray[np.int64], rng: np.random.Generator) -> int:
    """A start drawn uniformly from disjoint intervals [M, 2]."""
    ends = np.cumsum(intervals[:, 1] - intervals[:, 0])
    offset = rng.integers(ends[-1])
    row = int(np.searchsorted(ends, offset, side="right"))
    return int(intervals[row, 1] - (ends[row] - offset))


def _interpolate(waveform: Waveform, first: float, rate: float, *, out: Waveform) -> None:
    """out[i] = waveform at ``first + rate * i``, linearly between samples, zero outside."""
    low = max(0, int(np.ceil(-first / rate)))
    high = min(len(out), int(np.floor((len(waveform) - 1 - first) / rate)) + 1)
    positions = first + rate * np.arange(low, high)
    left = positions.astype(np.int64)
    fraction = (positions - left).astype(np.float32)
    right = np.minimum(left + 1, len(waveform) - 1)
    out[low:high] = waveform[left] * (1 - fraction) + waveform[right] * fraction
