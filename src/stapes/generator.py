"""Batches for ever: a random class, source and clip, a random start whose segment passes the gate.

Batch number n is a function of the seed and n alone, so training resumes exactly at any step
and batches may be made ahead of time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stapes import native, native_batches
from stapes.arrays import fetch, put
from stapes.segments import Waveform, gated_intervals
from stapes.threads import thread_count

Indices = NDArray[np.int64]

SPARE = 64
"""Zeros beyond the farthest samples of a segment at speeds up to 0.5: the kernels read 34 samples
and 16 steps behind the last."""


CLIPS_ALIKE = 10
"""A source counts as one for every so many clips of it, and as one where it has fewer, so that a
stray clip beside a source of hundreds is not half of its class."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Clips to learn from or to be measured on.

    Attributes:
        names: what errors call each clip.
        waveforms: one [T] a clip.
        targets: class index of each clip; -1 for what is none of the classes.
        sources: where each clip comes from.
    """

    names: Sequence[str]
    waveforms: Sequence[Waveform]
    targets: Sequence[int]
    sources: Sequence[str]

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
            [self.sources[i] for i in rows],
        )


@dataclass(frozen=True, slots=True)
class Draws:
    """Where segments are drawn, and from which clips; each an array [B].

    Attributes:
        firsts: places of their first samples among all clips.
        rates: samples from one of theirs to the next.
        targets: class indices.
        clips: rows of the clips.
    """

    firsts: NDArray[np.float64]
    rates: NDArray[np.float64]
    targets: Indices
    clips: Indices


@dataclass(frozen=True, slots=True)
class Drawn:
    """Raw segments [B, segment_length], the class index and the clip of each [B]."""

    segments: Waveform
    targets: Indices
    clips: Indices


class SegmentGenerator:
    """Draws segments of labelled clips; short clips lie at a random place among zeros.

    Classes come equally often, and so do the sources of a class, for clips of one are much alike;
    but one of very many clips counts as several, see :data:`CLIPS_ALIKE`.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        segment_length: int,
        gate: float,
        speed: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Find the admissible starts of every clip, and lay the clips into one array.

        Args:
            examples: the clips.
            segment_length: samples of a segment.
            gate: smallest peak of a segment, as a share of its clip's peak.
            speed: segments are played up to this share faster or slower (0: as recorded).
            seed: of every random choice.
        """
        targets, waveforms = examples.targets, examples.waveforms
        sources = list(zip(targets, examples.sources, strict=True))  # of one class each
        self._clips_of_source = _Groups.of(sources)
        n_times = np.maximum(self._clips_of_source.sizes // CLIPS_ALIKE, 1)
        self._sources = np.repeat(np.arange(len(n_times)), n_times)
        of_class = np.array([target for target, _ in sorted(set(sources))])
        self._sources_of_class = _Groups.of(of_class[self._sources].tolist())
        self._targets = np.array(targets)
        self._segment_length = segment_length
        self._speed = speed
        self._seed = seed
        sound, firsts = _between_zeros(waveforms, segment_length, speed=speed)
        self._sound: Any = sound
        intervals = [_starts(w, segment_length=segment_length, gate=gate) for w in waveforms]
        parts = zip(intervals, firsts, strict=True)
        self._intervals = np.concatenate([part + first for part, first in parts])  # [M, 2]
        # Starts are numbered through: where an interval's numbers end, where a clip's begin.
        self._ends = np.cumsum(self._intervals[:, 1] - self._intervals[:, 0])
        self._n_starts = np.array([int(np.diff(part).sum()) for part in intervals])
        self._begins = np.cumsum(self._n_starts) - self._n_starts

    def to(self, device: str) -> Self:
        """Keep the clips, and draw from them, on another device."""
        self._sound = put(self._sound, device)
        return self

    def batch(self, step: int, *, batch_size: int) -> Drawn:
        """Batch number ``step``: the same for the same seed, whatever was drawn before."""
        segments = self.empty(batch_size)
        draws = self.choose(step, batch_size=batch_size)
        self.draw(draws, out=segments)
        return Drawn(fetch(segments), draws.targets, draws.clips)

    def empty(self, batch_size: int) -> Any:
        """Memory for segments where the clips are kept: [batch_size, segment_length]."""
        shape = batch_size, self._segment_length
        on_gpu = not isinstance(self._sound, np.ndarray)
        return self._sound.new_empty(shape) if on_gpu else np.empty(shape, np.float32)

    def choose(self, step: int, *, batch_size: int) -> Draws:
        """The segments of batch number ``step``."""
        rng = np.random.default_rng([self._seed, step])
        classes = rng.integers(len(self._sources_of_class.sizes), size=batch_size)
        sources = self._sources[self._sources_of_class.member(classes, rng)]
        clips = self._clips_of_source.member(sources, rng)
        rates = 1.0 + self._speed * rng.uniform(-1.0, 1.0, batch_size)
        starts = self._start(clips, rng)
        # A segment's middle stays in place at any speed, so a loud sample seldom leaves it.
        firsts = starts + (1 - rates) * (self._segment_length - 1) / 2
        return Draws(firsts, rates, self._targets[clips], clips)

    def draw(self, draws: Draws, *, out: Any) -> None:
        """Write segments to ``out`` [B, segment_length], where the clips are kept.

        out[b, i] = the sound at ``firsts[b] + rates[b] * i``, linearly between samples.
        """
        places = self._sound, draws.firsts, draws.rates
        if native.available() and isinstance(out, np.ndarray):
            return native_batches.draw(*places, n_threads=thread_count(), out=out)
        from stapes import torch_batches

        return torch_batches.draw(*places, out=out)

    def _start(self, clips: Indices, rng: np.random.Generator) -> Indices:
        """Uniform over the admissible starts of each clip, as places in the array: [B] -> [B]."""
        number = self._begins[clips] + rng.integers(self._n_starts[clips])
        row = np.searchsorted(self._ends, number, side="right")
        starts: Indices = self._intervals[row, 1] - (self._ends[row] - number)
        return starts


@dataclass(frozen=True, slots=True)
class _Groups:
    """Members [N] group after group, with the first places and the sizes of the groups."""

    members: Indices
    firsts: Indices
    sizes: Indices

    @classmethod
    def of(cls, names: Sequence[Any]) -> Self:
        """From the name of each member's group; groups are sorted by theirs."""
        numbers = {name: i for i, name in enumerate(sorted(set(names)))}
        groups = [numbers[name] for name in names]
        sizes = np.bincount(groups)
        return cls(np.argsort(groups, kind="stable"), np.cumsum(sizes) - sizes, sizes)

    def member(self, groups: Indices, rng: np.random.Generator) -> Indices:
        """A random member of each of these groups: [B] -> [B]."""
        members: Indices = self.members[self.firsts[groups] + rng.integers(self.sizes[groups])]
        return members


def _between_zeros(
    waveforms: Sequence[Waveform], segment_length: int, *, speed: float
) -> tuple[Waveform, list[int]]:
    """All clips in one array, with zeros wherever a segment may reach, and their places in it."""
    margin = math.ceil(speed * segment_length / 2) + SPARE
    margins = [margin + max(segment_length - len(w), 0) for w in waveforms]
    length = sum(2 * m + len(w) for m, w in zip(margins, waveforms, strict=True))
    sound = np.zeros(length, np.float32)
    firsts, end = [], 0
    for m, waveform in zip(margins, waveforms, strict=True):
        firsts.append(end + m)
        end = firsts[-1] + len(waveform)
        sound[firsts[-1] : end] = waveform
        end += m
    return sound, firsts


def _starts(waveform: Waveform, *, segment_length: int, gate: float) -> Indices:
    """Admissible starts as intervals [M, 2]; a short clip lies anywhere inside its segment."""
    if len(waveform) < segment_length:
        return np.array([[len(waveform) - segment_length, 1]])
    return gated_intervals(waveform, segment_length=segment_length, gate=gate)
