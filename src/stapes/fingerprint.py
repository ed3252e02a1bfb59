"""A waveform becomes a few hundred hashes a second; equal hashes give pairs that may share audio.

The hashes are triples of peaks in the spectrogram: where a peak lies against its neighbours in
time and frequency changes neither with the level and the polarity nor, for most peaks, with the
codec and the sample rate (Wang, "An industrial-strength audio search algorithm", ISMIR 2003, with
pairs; Six and Leman, "Panako", ISMIR 2014, with triples). What is found here is a candidate, and
proved or dropped by :mod:`stapes.alignment`.
"""

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

REACH_FRAMES, REACH_BINS = 5, 8
"""A peak is the largest value within 80 ms and 125 Hz on all sides: at most about 90 a second."""

FAINTEST_DB = 60.0
"""Peaks further below the loudest within a second are left to the codecs."""

FAINTEST = 3e-4
"""And peaks below this magnitude, about that of a waveform rounded to 16 bits (5e-5 is its RMS)."""

BLOCK_FRAMES = 4_096
"""Frames looked at together, about a minute: memory does not grow with the recording."""

N_LATER, N_LOOKED_AT = 5, 16
"""Each peak forms triples with the first 5 fitting ones of the 16 that follow it."""

FARTHEST_BINS, FARTHEST_FRAMES = 63, 31
"""Largest distance of peaks in one triple: 1 kHz and half a second."""

MOST_MATCHES = 30_000_000
"""Pairs of equal hashes that are counted, which bounds the memory (8 bytes each, twice)."""

FEWEST_VOTES = 5
"""Equal hashes at one offset that make two recordings a candidate."""

MOST_OFFSETS = 3
"""Offsets of one pair that are worth a proof."""

Fingerprint = NDArray[np.uint64]
"""Sorted by time: hash in the upper 32 bits, frame in the lower."""


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
    frames, bins = _peaks(waveform)
    return _triples(frames, bins)


def find_candidates(fingerprints: Sequence[Fingerprint]) -> list[Candidate]:
    """Pairs of recordings with equal hashes at one offset, ordered by their indices.

    All hashes stand in one sorted array. The pairs of neighbours in it are counted first, then
    those with one between, and so on until :data:`MOST_MATCHES`: so what is common costs
    bounded memory, and of very many copies each is still paired with some of the others.
    """
    lengths = [int(prints[-1] & _LOW) + 1 if len(prints) else 1 for prints in fingerprints]
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


_LOW = np.uint64(0xFFFFFFFF)


def _peaks(waveform: Waveform) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Frames and bins of the peaks of the spectrogram, in order of time."""
    window = np.hanning(FRAME_LENGTH + 1)[:-1].astype(np.float32)
    context = REACH_FRAMES + round(RATE_HZ / HOP_LENGTH / 2)
    n_frames = max(0, (len(waveform) - FRAME_LENGTH) // HOP_LENGTH + 1)
    found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for start in range(0, n_frames, BLOCK_FRAMES):
        stop = min(start + BLOCK_FRAMES, n_frames)
        low, high = max(start - context, 0), min(stop + context, n_frames)
        piece = waveform[low * HOP_LENGTH : (high - 1) * HOP_LENGTH + FRAME_LENGTH]
        views = np.lib.stride_tricks.sliding_window_view(piece, FRAME_LENGTH)[::HOP_LENGTH]
        magnitudes = np.abs(np.fft.rfft(views * window, axis=1)).astype(np.float32)
        frames, bins = np.nonzero(_is_peak(magnitudes[:, LOWEST_BIN:]))
        inside = (frames + low >= start) & (frames + low < stop)
        found.append((frames[inside] + low, bins[inside] + LOWEST_BIN))
    return np.concatenate([f for f, _ in found]), np.concatenate([b for _, b in found])


def _is_peak(magnitudes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a spectrogram [frames, bins] is largest within its reach, and loud enough."""
    second = round(RATE_HZ / HOP_LENGTH / 2)
    around = _largest(_largest(magnitudes, REACH_FRAMES, axis=0), REACH_BINS, axis=1)
    loudest = _largest(magnitudes.max(axis=1, keepdims=True), second, axis=0)
    faintest = np.maximum(loudest * 10 ** (-FAINTEST_DB / 20), FAINTEST)
    peaks: NDArray[np.bool_] = (magnitudes >= around) & (magnitudes > faintest)
    return peaks


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


def _triples(frames: NDArray[np.int64], bins: NDArray[np.int64]) -> Fingerprint:
    """Hash each peak with pairs of the peaks behind it: [n] -> at most [n * 10], by time."""
    if len(frames) < 3:
        return np.empty(0, np.uint64)
    later = np.arange(len(frames))[:, None] + np.arange(1, N_LOOKED_AT + 1)
    inside = later < len(frames)
    later = np.minimum(later, len(frames) - 1)
    delays, rises = frames[later] - frames[:, None], bins[later] - bins[:, None]
    near = (np.abs(rises) <= FARTHEST_BINS) & (delays > 1) & (delays <= FARTHEST_FRAMES) & inside
    rank = np.cumsum(near, axis=1)
    chosen = np.full((len(frames), N_LATER), -1)
    rows, columns = np.nonzero(near & (rank <= N_LATER))
    chosen[rows, rank[rows, columns] - 1] = columns
    hashes = []
    for j in range(N_LATER):
        for k in range(j + 1, N_LATER):
            row = np.flatnonzero(chosen[:, k] >= 0)
            first, second = chosen[row, j], chosen[row, k]
            # Halved, because another grid of frames moves a peak by one at most.
            parts = (
                (bins[row] // 2, 7),
                ((rises[row, first] + 64) // 2, 6),
                ((rises[row, second] + 64) // 2, 6),
                (delays[row, first] // 2, 4),
                (delays[row, second] // 2, 4),
            )
            value = np.zeros(len(row), np.int64)
            for part, n_bits in parts:
                value = (value << n_bits) | part
            hashes.append(
                (value.astype(np.uint64) << np.uint64(32)) | frames[row].astype(np.uint64)
            )
    joined = np.concatenate(hashes)
    return joined[np.argsort(joined & _LOW, kind="stable")]


def _matches(entries: Fingerprint, starts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Pairs of equal hashes in different recordings, each as one number; see ``_packed``."""
    hashes = (entries >> np.uint64(32)).astype(np.uint32)
    positions = (entries & _LOW).astype(np.uint32)
    index = np.arange(len(entries), dtype=np.uint32)
    left = MOST_MATCHES
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
    """The offsets of each pair on which most matches agree, give or take a frame."""
    if not len(matches):
        return []
    keys, counts = np.unique(matches, return_counts=True)
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
