"""A waveform becomes a few hundred hashes a second; equal hashes give pairs that may share audio.

The hashes are triples of peaks in the spectrogram: where a peak lies against its neighbours in
time and frequency changes neither with the level and the polarity nor, for most peaks, with the
codec and the sample rate (Wang, "An industrial-strength audio search algorithm", ISMIR 2003, with
pairs; Six and Leman, "Panako", ISMIR 2014, with triples). What is found here is a candidate, and
proved or dropped by :mod:`stapes.alignment`.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stapes.segments import Waveform

RATE_HZ = 8_000
"""All audio is compared at this rate, the lowest that recordings are copied at."""

FRAME_LENGTH, HOP_LENGTH = 512, 128
"""Of the spectrogram: 64 ms windows every 16 ms, bins of 15.6 Hz."""

LOWEST_BIN = 6
"""Below 94 Hz lie hum and wind, which say nothing of the recording."""

REACH_FRAMES, REACH_BINS = 2, 4
"""A peak is the largest value within 32 ms and 62 Hz on all sides: about 150 a second."""

FAINTEST_DB = 60.0
"""Peaks further below the loudest half a second around are left to the codecs."""

FAINTEST = 3e-4
"""And peaks below this magnitude, about that of a waveform rounded to 16 bits (5e-5 is its RMS)."""

CONTEXT_FRAMES = 31
"""Half a second: what is loud there hides what is faint."""

BLOCK_FRAMES, BLOCK_PEAKS = 4_096, 16_384
"""Looked at together, a minute or two: memory hardly grows with the recording."""

N_LATER, N_LOOKED_AT = 3, 16
"""Each peak forms triples with the first 3 fitting ones of the 16 that follow it."""

FARTHEST_BINS, NEAREST_FRAMES, FARTHEST_FRAMES = 62.0, 1.5, 31.0
"""How far the other peaks of a triple may be: 1 kHz; 24 ms to half a second."""

STEP_BINS, STEP_FRAMES = 1.5, 1.5
"""Rounding of frequencies and times in a hash: what another grid of frames changes, or a codec."""

MOST_MATCHES = 20_000_000
"""Pairs of equal hashes that are counted, or as many as there are hashes, if these are more: so
memory (8 bytes each, four times) stays in proportion to the audio, whatever that repeats."""

FEWEST_VOTES = 4
"""Equal hashes at one offset that make two recordings a candidate; one peak has 3 at most."""

MOST_OFFSETS = 3
"""Offsets of one pair that are worth a proof."""

Fingerprint = NDArray[np.uint64]
"""Sorted by time: hash in the upper 32 bits, frame in the lower."""

FRAME_BITS = np.uint64((1 << 32) - 1)
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Two recordings that may share audio.

    Attributes:
        first: index of one.
        second: index of the other, larger.
        offset_seconds: time in the first less the time in the second of what seems to be the
            same, to about 30 ms.
        votes: number of equal hashes at this offset.
    """

    first: int
    second: int
    offset_seconds: float
    votes: int


def fingerprint(waveform: Waveform) -> Fingerprint:
    """Hashes of a waveform [T] at :data:`RATE_HZ`; empty for silence."""
    times, frequencies = _peaks(waveform)
    pieces = [np.empty(0, np.uint64)]
    for start in range(0, len(times), BLOCK_PEAKS):
        ahead = slice(start, start + BLOCK_PEAKS + N_LOOKED_AT)
        pieces.append(_triples(times[ahead], frequencies[ahead], n=BLOCK_PEAKS))
    return np.concatenate(pieces)


def find_candidates(fingerprints: Sequence[Fingerprint]) -> list[Candidate]:
    """Pairs of recordings with equal hashes at one offset, ordered by their indices.

    All hashes stand in one sorted array. The pairs of neighbours in it are counted first, then
    those with one between, and so on until :data:`MOST_MATCHES`: so what is common costs
    bounded memory, and of very many copies each is still paired with some of the others.
    """
    lengths = [int(prints[-1] & FRAME_BITS) + 1 if len(prints) else 1 for prints in fingerprints]
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    if starts[-1] >= 1 << 32:
        raise ValueError(f"{starts[-1]} frames of audio are more than 32 bits can number")
    entries = np.concatenate(
        [
            np.empty(0, np.uint64),
            *(p + np.uint64(s) for p, s in zip(fingerprints, starts[:-1], strict=True)),
        ]
    )
    entries.sort()
    matches = np.concatenate([np.empty(0, np.int64), *_matches(entries, starts)])
    matches.sort()
    return _most_voted(matches, starts)


def _peaks(waveform: Waveform) -> tuple[Floats, Floats]:
    """Times in frames and frequencies in bins of the spectrogram's peaks, in order of time."""
    window = np.hanning(FRAME_LENGTH + 1)[:-1].astype(np.float32)
    n_frames = max(0, (len(waveform) - FRAME_LENGTH) // HOP_LENGTH + 1)
    times, frequencies = [np.empty(0)], [np.empty(0)]
    for start in range(0, n_frames, BLOCK_FRAMES):
        low, high = max(start - CONTEXT_FRAMES, 0), start + BLOCK_FRAMES + CONTEXT_FRAMES
        high = min(high, n_frames)
        piece = waveform[low * HOP_LENGTH : (high - 1) * HOP_LENGTH + FRAME_LENGTH]
        views = np.lib.stride_tricks.sliding_window_view(piece, FRAME_LENGTH)[::HOP_LENGTH]
        magnitudes = np.abs(np.fft.rfft(views * window, axis=1)).astype(np.float32)
        frames, bins = np.nonzero(_is_peak(magnitudes))
        inside = (frames + low >= start) & (frames + low < start + BLOCK_FRAMES)
        frames, bins = frames[inside], bins[inside]
        times.append(low + frames + _between(magnitudes, frames, bins, axis=0))
        frequencies.append(bins + _between(magnitudes, frames, bins, axis=1))
    time, frequency = np.concatenate(times), np.concatenate(frequencies)
    order = np.argsort(time, kind="stable")
    return time[order], frequency[order]


def _is_peak(magnitudes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a spectrogram [frames, bins] is largest within its reach, and loud enough."""
    around = _largest(_largest(magnitudes, REACH_FRAMES, axis=0), REACH_BINS, axis=1)
    loudest = _largest(magnitudes.max(axis=1, keepdims=True), CONTEXT_FRAMES, axis=0)
    faintest = np.maximum(loudest * 10 ** (-FAINTEST_DB / 20), FAINTEST)
    peaks: NDArray[np.bool_] = (magnitudes >= around) & (magnitudes > faintest)
    peaks[:, :LOWEST_BIN] = False
    return peaks


def _between(
    magnitudes: NDArray[np.float32], frames: Indices, bins: Indices, *, axis: int
) -> Floats:
    """How far the true peaks lie from these cells along an axis: up to half a cell each way.

    A parabola through the logarithms of a peak and its two neighbours, which is exact for a
    Gaussian and near for a Hann window.
    """
    step = np.eye(2, dtype=int)[axis]
    last = np.array(magnitudes.shape) - 1
    cells = np.stack([frames, bins], axis=1)
    near = (np.clip(cells + step * d, 0, last).T for d in (-1, 0, 1))
    before, here, behind = (np.log(magnitudes[tuple(where)] + 1e-9) for where in near)
    curvature = np.minimum(before - 2 * here + behind, -1e-6)
    shift: Floats = np.clip(0.5 * (before - behind) / curvature, -0.5, 0.5)
    return shift


def _largest(values: NDArray[np.float32], reach: int, *, axis: int) -> NDArray[np.float32]:
    """Maximum within ``reach`` on both sides along an axis, by doubling windows."""
    result = np.moveaxis(values, axis, 0)
    width = 2 * reach + 1
    edge = np.full((reach, *result.shape[1:]), -np.inf, np.float32)
    result = np.concatenate([edge, result, edge])
    done = 1
    while done < width:
        step = min(done, width - done)
        result = np.maximum(result[:-step], result[step:])
        done += step
    return np.moveaxis(result, 0, axis)


def _triples(times: Floats, frequencies: Floats, *, n: int) -> Fingerprint:
    """Hash the first n peaks, each with pairs of the peaks behind it: at most [n * 3], by time."""
    others = _neighbours(times, frequencies)[:n]
    hashes = [np.empty(0, np.uint64)]
    for j, k in itertools.combinations(range(N_LATER), 2):
        row = np.flatnonzero(others[:, k] >= 0)
        first, second = others[row, j], others[row, k]
        parts = (
            (frequencies[row] / STEP_BINS, 8),
            ((frequencies[first] - frequencies[row] + 64) / STEP_BINS, 7),
            ((frequencies[second] - frequencies[row] + 64) / STEP_BINS, 7),
            ((times[first] - times[row]) / STEP_FRAMES, 5),
            ((times[second] - times[row]) / STEP_FRAMES, 5),
            (np.round(times[row]), 32),
        )
        value = np.zeros(len(row), np.uint64)
        for part, n_bits in parts:
            value = value << np.uint64(n_bits) | part.astype(np.uint64)
        hashes.append(value)
    joined = np.concatenate(hashes)
    return joined[np.argsort(joined & FRAME_BITS, kind="stable")]


def _neighbours(times: Floats, frequencies: Floats) -> Indices:
    """The first other peaks that are near and behind each: [n, N_LATER] indices, -1 for none."""
    later = np.arange(len(times))[:, None] + np.arange(1, N_LOOKED_AT + 1)
    inside = later < len(times)
    later = np.where(inside, later, 0)
    delays = times[later] - times[:, None]
    rises = np.abs(frequencies[later] - frequencies[:, None])
    near = inside & (rises <= FARTHEST_BINS)
    near &= (delays >= NEAREST_FRAMES) & (delays <= FARTHEST_FRAMES)
    rank = np.cumsum(near, axis=1)
    rows, columns = np.nonzero(near & (rank <= N_LATER))
    others = np.full((len(times), N_LATER), -1)
    others[rows, rank[rows, columns] - 1] = later[rows, columns]
    return others


def _matches(entries: Fingerprint, starts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Pairs of equal hashes in different recordings, each as one number; see ``_packed``."""
    hashes = (entries >> np.uint64(32)).astype(np.uint32)
    positions = (entries & FRAME_BITS).astype(np.uint32)
    index = np.arange(len(entries), dtype=np.uint32)
    left = max(MOST_MATCHES, len(entries))
    for distance in range(1, len(entries)):
        index = index[index < len(entries) - distance]
        index = index[hashes[index] == hashes[index + np.uint32(distance)]]
        if not len(index) or len(index) > left:
            return
        packed = _packed(positions[index], positions[index + np.uint32(distance)], starts)
        left -= len(packed)
        yield packed


def _packed(
    first: NDArray[np.uint32], second: NDArray[np.uint32], starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Two recordings and the offset between two of their frames as one sortable number."""
    a = np.searchsorted(starts, first, side="right") - 1
    b = np.searchsorted(starts, second, side="right") - 1
    differ = a != b
    a, b, first, second = a[differ], b[differ], first[differ], second[differ]
    n, longest = len(starts) - 1, int(np.diff(starts).max())
    offset = (first - starts[a]) - (second - starts[b])
    packed: NDArray[np.int64] = (a * n + b) * (2 * longest + 2) + offset + longest
    return packed


def _most_voted(matches: NDArray[np.int64], starts: NDArray[np.int64]) -> list[Candidate]:
    """The offsets of each pair on which most of the sorted matches agree, give or take a frame."""
    if not len(matches):
        return []
    first_of_run = np.flatnonzero(np.diff(matches, prepend=matches[0] - 1))
    keys, counts = matches[first_of_run], np.diff(first_of_run, append=len(matches))
    votes = counts.copy()
    adjacent = np.diff(keys) == 1
    votes[:-1] += np.where(adjacent, counts[1:], 0)
    votes[1:] += np.where(adjacent, counts[:-1], 0)
    enough = votes >= FEWEST_VOTES
    keys, votes = keys[enough], votes[enough]
    n, longest = len(starts) - 1, int(np.diff(starts).max())
    pairs, offsets = np.divmod(keys, 2 * longest + 2)
    candidates: list[Candidate] = []
    best: dict[int, list[int]] = {}
    for i in np.lexsort((-votes, pairs)):
        known = best.setdefault(int(pairs[i]), [])
        offset = int(offsets[i]) - longest
        if len(known) < MOST_OFFSETS and all(abs(offset - other) > 3 for other in known):
            known.append(offset)
            first, second = divmod(int(pairs[i]), n)
            seconds = offset * HOP_LENGTH / RATE_HZ
            candidates.append(Candidate(first, second, seconds, int(votes[i])))
    return candidates
