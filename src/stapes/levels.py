"""At which level a segment reaches the network: its own, in steps that its neighbours share.

Every segment is brought to RMS 1 by its own statistics alone. Two segments that overlap could
share nothing in the network if their gains differed by a hair, so gains go in steps: a segment's
RMS ends within half of ``LEVEL_STEP_DB`` of 1, which networks are trained to bear, and neighbours
mostly end up with the same gain, bit for bit.
"""

import math
from dataclasses import astuple, dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stapes.native import Stretches, describe
from stapes.segments import SILENCE_RMS, Waveform, cut
from stapes.threads import thread_count

LEVEL_STEP_DB = 12.0
"""Gains are whole multiples of this."""

OFFSET_STEP = 0.125
"""Means are subtracted in whole multiples of this share of the level."""

FINEST_BLOCK = 1024
"""Sums are kept of the longest blocks that divide this and a segment."""

MOST_CUT = 1 << 22
"""Samples that segments are cut out into at a time, where they share no blocks: 16 MB."""

Array64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Levels:
    """What makes of segments x what the network hears, scale * (x - offset), and their peaks.

    Attributes:
        offsets: [N].
        scales: [N].
        peaks: highest magnitude of each, as recorded, but 0 of silence and constants [N].
    """

    offsets: NDArray[np.float32]
    scales: NDArray[np.float32]
    peaks: NDArray[np.float32]

    def ignored(self) -> Self:
        """Levels of segments that the network hears as they are."""
        return replace(self, offsets=np.zeros_like(self.offsets), scales=np.ones_like(self.scales))

    def apply(self, segments: Waveform) -> Waveform:
        """Segments as the network hears them: [N, T] -> [N, T]."""
        heard: Waveform = (segments - self.offsets[:, None]) * self.scales[:, None]
        return heard


def levels(waveform: Waveform, starts: NDArray[np.int64], *, segment_length: int) -> Levels:
    """The level of each segment of one waveform, from that segment's samples alone.

    Args:
        waveform: [T].
        starts: first samples of the segments [N], ascending, all inside.
        segment_length: samples.
    """
    block = math.gcd(segment_length, FINEST_BLOCK)
    n_blocks, first = segment_length // block, int(starts[0])
    if not np.any((starts - first) % block):
        blocks = _Blocks.of(waveform[first : int(starts[-1]) + segment_length], block)
        return blocks.levels((starts - first) // block, n_blocks)
    found, n_parts = [], min(-(-len(starts) * segment_length // MOST_CUT), len(starts))
    for some in np.array_split(starts, n_parts):
        blocks = _Blocks.of(cut(waveform, some, segment_length=segment_length), block)
        found.append(blocks.levels(np.arange(len(some)) * n_blocks, n_blocks))
    return Levels(*(np.concatenate(parts) for parts in zip(*map(astuple, found), strict=True)))


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Means, sums of squares about them and highest magnitudes of blocks of samples, each [M]."""

    length: int
    means: Array64
    squares: Array64
    peaks: NDArray[np.float32]

    @classmethod
    def of(cls, samples: Waveform, length: int) -> Self:
        """Of samples [*] that come in whole blocks."""
        return cls(length, *describe(samples.reshape(-1, length), n_threads=thread_count()))

    def levels(self, begins: NDArray[np.int64], count: int) -> Levels:
        """Of segments of so many blocks each, from the blocks they begin with [N].

        The sum of squares about the mean of all is that about each block's mean, and that of
        the means (Chan, Golub and LeVeque, 1983).
        """
        means = _sums(self.means, begins, count) / count
        between = _sums(self.means**2, begins, count) - count * means**2
        power = (_sums(self.squares, begins, count) / self.length + between) / count
        rms = np.sqrt(np.maximum(power, SILENCE_RMS**2))
        steps = np.round(20 * np.log10(rms) / LEVEL_STEP_DB)
        level = 10 ** (steps * (LEVEL_STEP_DB / 20))
        offsets = np.round(means / (OFFSET_STEP * level)) * OFFSET_STEP * level + 0.0  # no -0.0
        peaks = np.where(power > SILENCE_RMS**2, _highest(self.peaks, begins, count), np.float32(0))
        return Levels(offsets.astype(np.float32), (1 / level).astype(np.float32), peaks)


def _sums(values: Array64, begins: NDArray[np.int64], count: int) -> Array64:
    """Sums of ``count`` values from each beginning on, and of no others: [M] -> [N].

    They are put together from sums of 1, 2, 4, ... neighbours, for differences of sums that run
    on would carry what is rounded of one huge value to all behind it.
    """
    sums: Array64 = np.zeros(len(begins))
    width = 1
    while True:
        if count & width:
            sums += values[begins]
            begins = begins + width
        if 2 * width > count:
            return sums
        values = values[:-width] + values[width:]
        width *= 2


def _highest(
    values: NDArray[np.float32], begins: NDArray[np.int64], count: int
) -> NDArray[np.float32]:
    """The highest of ``count`` values from each beginning on: [M] -> [N]."""
    width = 1
    while 2 * width <= count:
        values = np.maximum(values[:-width], values[width:])
        width *= 2
    return np.maximum(values[begins], values[begins + count - width])


def stretches(
    starts: NDArray[np.int64], given: Levels, *, hop_length: int, segment_length: int, most: int
) -> tuple[Stretches, NDArray[np.int64]]:
    """Group segments, one every hop, into stretches of one gain.

    A stretch goes on over segments of another gain while those it is for overlap.

    Args:
        starts: first samples of the segments [N], one every hop.
        given: their levels.
        hop_length: samples between the starts.
        segment_length: samples.
        most: segments in one stretch, at most.

    Returns:
        The stretches, and for each segment [N] its place among all of theirs.
    """
    if most == 1:
        alone = Stretches(starts, np.ones(len(starts), np.int64), given.offsets, given.scales)
        return alone, np.arange(len(starts))
    gains = np.stack([given.offsets, given.scales], axis=1).view(np.int64)[:, 0]
    _, kinds = np.unique(gains, return_inverse=True)
    order = np.argsort(kinds, kind="stable")  # by gain, and then by time
    gap = -(-segment_length // hop_length)
    ends_here = (np.diff(kinds[order]) != 0) | (np.diff(order) >= gap)
    firsts, counts, of_run, picked, n_before = [], [], [], [], 0
    for run in np.split(order, np.flatnonzero(ends_here) + 1):
        first, n = int(run[0]), int(run[-1]) + 1 - int(run[0])
        size = -(-n // -(-n // most))
        pieces = range(0, n, size)
        firsts += [first + piece for piece in pieces]
        counts += [min(size, n - piece) for piece in pieces]
        of_run += [first] * len(pieces)
        picked.append(run + (n_before - first))
        n_before += n
    places = np.empty(len(starts), np.int64)
    places[order] = np.concatenate(picked)
    found = Stretches(starts[firsts], np.array(counts), given.offsets[of_run], given.scales[of_run])
    return found, places
