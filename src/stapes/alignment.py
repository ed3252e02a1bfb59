"""Whether two waveforms share audio: normalised cross-correlation of what is in them, flattened.

Both waveforms are *flattened* first: every cell of time and frequency is brought to about the same
power. What is left of a recording is its fine structure, mostly noise, which nothing but the very
same recording repeats: two barks of one dog, two hums at 50 Hz or two clicks agree in their
envelope and spectrum, which are gone, and in little else.

Why the threshold proves it: pieces of 0.25 s hold 2 * 0.25 s * 3500 Hz = 1750 independent numbers
once they are flat, so the correlation of two pieces that have nothing to do with each other has a
standard deviation of 1 / sqrt(1750) = 0.024, and 0.6 is 25 of these. What cannot be flattened has
fewer: of 10,000 made-up calls, three pairs with nearly the same pitch reached 0.54 to 0.62 over
three eighths of a second, where copies through MP3 at 64 kbit/s have 0.8 and more; so what is short
must be more alike. A steady tone in silence has fewest, but it also agrees with itself at other
offsets: so the correlation at the offset found must stand alone among those around it. Audio that
repeats itself exactly, such as a synthesised beep, has no offset that stands alone, and is never
reported, unless whole files have the same samples.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stapes.fingerprint import RATE_HZ
from stapes.segments import Waveform

Floats = NDArray[np.float64]

FRAME_LENGTH, HOP_LENGTH = 512, 256
"""Of the short-time spectrum that is flattened: 64 ms windows every 32 ms, bins of 15.6 Hz."""

BAND_HZ = (100.0, 3_600.0)
"""Compared frequencies: above hum and wind, below what a low-pass at 4 kHz has touched."""

SMOOTHING_FRAMES, SMOOTHING_BINS = 5, 17
"""The power of a cell is that of its neighbourhood, 160 ms and 266 Hz."""

FLOOR = 1e-5
"""Cells this far (-50 dB) below the mean of the second around them are not amplified further."""

SILENCE = 1e-7
"""Mean power of a cell when the waveform is what rounding to 16 bits leaves, an RMS of 1e-5."""

NEAR_LENGTH = 400
"""By how many samples (50 ms) the true offset may differ from the one to be proved."""

AROUND_LENGTH = 2_000
"""Offsets up to 0.25 s away from the one found are those it must stand out from."""

ALONE_LENGTH, ALONE = 480, 3.0
"""Beyond 60 ms no correlation may come nearer than this factor to that at the offset found."""

BLOCK_LENGTH, BLOCK_HOP = 2_000, 1_000
"""Pieces of 0.25 s, half overlapping, are compared one by one."""

SAME = 0.6
"""Correlation of flattened pieces from which they are the same audio; see above."""

PROOF_SECONDS = 0.25
"""Length of an uninterrupted equal stretch times the share of its power that is the same (the
square of the correlation) from which it is a proof: 0.375 s at 0.82, 0.7 s at 0.6."""

QUIET = 1e-3
"""A piece with less than this share of the loudest piece's flattened power says nothing."""

LONGEST_LENGTH, LAPPED_LENGTH = 60 * RATE_HZ, RATE_HZ
"""Longer overlaps are compared in parts of this length, so that memory does not grow with them,
each of which begins this much earlier, so that what is shared lies whole in one of two."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """The audio that two waveforms share.

    Attributes:
        offset_seconds: time in the first waveform less the time in the second.
        start_seconds: where what they share begins in the first.
        shared_seconds: how much audio is the same.
        agreement: which share that is of all that can be heard where the two overlap.
        similarity: correlation of the longest shared stretch, flattened, up to 1.
        gain_db: level of the second less the level of the first.
        inverted: whether the polarity differs.
    """

    offset_seconds: float
    start_seconds: float
    shared_seconds: float
    agreement: float
    similarity: float
    gain_db: float
    inverted: bool


def align(first: Waveform, second: Waveform, *, offset_seconds: float) -> Alignment | None:
    """Prove that two waveforms share audio at about a given offset.

    Args:
        first: [T] at :data:`stapes.fingerprint.RATE_HZ`.
        second: [T'] at the same rate.
        offset_seconds: time in the first less the time in the second, to 50 ms.

    Returns:
        What is shared; None where nothing is proved.
    """
    offset = round(offset_seconds * RATE_HZ)
    start, stop = max(0, offset), min(len(first), offset + len(second))
    audible, same = np.zeros((2, max(stop - start, 0) // BLOCK_HOP + 1), dtype=bool)
    proofs = []
    for begin in range(start, stop, LONGEST_LENGTH):
        low, high = max(begin - LAPPED_LENGTH, start), min(begin + LONGEST_LENGTH, stop)
        part = _align_part(first, second, offset=offset, start=low, stop=high)
        blocks = (low - start) // BLOCK_HOP + np.arange(len(part.audible))
        audible[blocks] |= part.audible
        if part.proof is not None:
            same[blocks] |= part.same
            proofs.append(part.proof)
    if not proofs:
        return None
    return replace(
        max(proofs, key=lambda proof: proof.shared_seconds),
        start_seconds=proofs[0].start_seconds,
        shared_seconds=_covered(same) / RATE_HZ,
        agreement=float(same.sum() / audible.sum()),
    )


def flatten(waveform: Waveform) -> Waveform:
    """Bring all cells of time and frequency to about the same power: [T] -> [T].

    Frequencies outside :data:`BAND_HZ` are removed; silence stays silence.
    """
    length = len(waveform)
    n_frames = -(-length // HOP_LENGTH) + 1
    # The square root of a Hann window before and after: their product, half overlapping, adds to 1.
    window = np.sqrt(np.hanning(FRAME_LENGTH + 1)[:-1]).astype(np.float32)
    padded = np.zeros((n_frames + 1) * HOP_LENGTH, np.float32)
    padded[HOP_LENGTH : HOP_LENGTH + length] = waveform
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME_LENGTH)[::HOP_LENGTH] * window
    spectra = np.fft.rfft(frames, axis=1)
    frequencies = np.fft.rfftfreq(FRAME_LENGTH, 1 / RATE_HZ)
    spectra[:, (frequencies < BAND_HZ[0]) | (frequencies > BAND_HZ[1])] = 0
    power = np.abs(spectra) ** 2
    loudness = _mean(power.mean(axis=1, keepdims=True), RATE_HZ // HOP_LENGTH, axis=0)
    power = _mean(_mean(power, SMOOTHING_FRAMES, axis=0), SMOOTHING_BINS, axis=1)
    spectra /= np.sqrt(power + FLOOR * loudness + SILENCE)
    halves = (np.fft.irfft(spectra, FRAME_LENGTH, axis=1) * window).reshape(-1, 2, HOP_LENGTH)
    flat = (halves[1:, 0] + halves[:-1, 1]).reshape(-1)[:length]
    return flat.astype(np.float32)


def _mean(values: Floats, width: int, *, axis: int) -> Floats:
    """Mean over an odd window around each value along an axis, zeros beyond the ends."""
    moved = np.moveaxis(values, axis, 0)
    reach = width // 2
    before, behind = (np.zeros((n, *moved.shape[1:])) for n in (reach + 1, reach))
    sums = np.cumsum(np.concatenate([before, moved, behind]), axis=0)
    means: Floats = (sums[2 * reach + 1 :] - sums[: -2 * reach - 1]) / (2 * reach + 1)
    return np.maximum(np.moveaxis(means, 0, axis), 0.0)  # rounding in the sums goes below 0


@dataclass(frozen=True, slots=True)
class _Part:
    """Which pieces of a part can be heard and are equal [N], and what they prove."""

    audible: NDArray[np.bool_]
    same: NDArray[np.bool_]
    proof: Alignment | None


def _align_part(first: Waveform, second: Waveform, *, offset: int, start: int, stop: int) -> _Part:
    """What is shared between samples ``start`` and ``stop`` of the first waveform."""
    margin = AROUND_LENGTH + NEAR_LENGTH
    a = flatten(_excerpt(first, start - margin, stop + margin))
    b = flatten(_excerpt(second, start - offset, stop - offset))
    correlations = _correlate(a, b)
    lag, fraction = _peak(correlations, middle=margin)
    b = _delayed(b, fraction)
    inverted = bool(correlations[lag] < 0)
    audible, same = _compare_blocks(a[lag : lag + len(b)], -b if inverted else b)
    low, high = _longest_run(same)
    nothing = _Part(audible, same, None)
    if high == low:
        return nothing
    begin, end = low * BLOCK_HOP, (high - 1) * BLOCK_HOP + BLOCK_LENGTH
    similarity = abs(_cosine(a[lag + begin : lag + end], b[begin:end]))
    around = a[lag + begin - AROUND_LENGTH : lag + end + AROUND_LENGTH]
    if similarity**2 * (end - begin) <= PROOF_SECONDS * RATE_HZ:
        return nothing
    if not _stands_alone(_correlate(around, b[begin:end])):
        return nothing
    shift = lag - margin
    levels = [
        _rms(_excerpt(waveform, begin + moved, end + moved))
        for waveform, moved in ((first, start + shift), (second, start - offset))
    ]
    proof = Alignment(
        offset_seconds=(offset + shift + fraction) / RATE_HZ,
        start_seconds=(start + shift + int(same.argmax()) * BLOCK_HOP) / RATE_HZ,
        shared_seconds=_covered(same) / RATE_HZ,
        agreement=float(same.sum() / audible.sum()),
        similarity=similarity,
        gain_db=20 * float(np.log10(levels[1] / levels[0])),
        inverted=inverted,
    )
    return _Part(audible, same, proof)


def _excerpt(waveform: Waveform, start: int, stop: int) -> Waveform:
    """Samples from start to stop, zeros where these lie outside: [stop - start]."""
    inside = waveform[max(start, 0) : max(stop, 0)]
    return np.pad(
        inside, (min(max(-start, 0), stop - start), max(stop - max(start, len(waveform)), 0))
    )


def _correlate(longer: Waveform, shorter: Waveform) -> Floats:
    """Sums of products at every lag where the shorter lies inside: [T], [T'] -> [T - T' + 1]."""
    n = 1 << (len(longer) - 1).bit_length()
    spectrum = np.fft.rfft(longer, n) * np.conj(np.fft.rfft(shorter, n))
    return np.fft.irfft(spectrum, n)[: len(longer) - len(shorter) + 1]


def _peak(correlations: Floats, *, middle: int) -> tuple[int, float]:
    """The lag near the middle where the magnitude is largest, and the fraction of a sample."""
    low = middle - NEAR_LENGTH
    lag = low + int(np.abs(correlations[low : middle + NEAR_LENGTH + 1]).argmax())
    reach = np.arange(-16, 17)
    fractions = np.linspace(-0.5, 0.5, 17)
    # Between samples a band-limited signal is a sum of sinc functions.
    fine = np.sinc(fractions[:, None] - reach) @ correlations[lag + reach]
    return lag, float(fractions[np.abs(fine).argmax()])


def _delayed(waveform: Waveform, fraction: float) -> Waveform:
    """A waveform later by a fraction of a sample: [T] -> [T]."""
    n = 1 << (len(waveform) + 64).bit_length()
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(n) * fraction)
    return np.fft.irfft(np.fft.rfft(waveform, n) * turn, n)[: len(waveform)].astype(np.float32)


def _compare_blocks(
    first: Waveform, second: Waveform
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which half overlapping pieces of two waveforms [T] can be heard in either, and are equal."""
    if len(first) < BLOCK_LENGTH:
        return np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
    views = [
        np.lib.stride_tricks.sliding_window_view(waveform, BLOCK_LENGTH)[::BLOCK_HOP]
        for waveform in (first, second)
    ]
    products = np.einsum("bt,bt->b", *views)
    energies = np.array([np.einsum("bt,bt->b", view, view) for view in views])
    audible = energies > QUIET * energies.max() + 1e-9
    same = audible.all(axis=0) & (products >= SAME * np.sqrt(energies.prod(axis=0)))
    return audible.any(axis=0), same


def _longest_run(flags: NDArray[np.bool_]) -> tuple[int, int]:
    """First index of the longest run of true flags, and that behind it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    runs = edges.reshape(-1, 2)
    if not len(runs):
        return 0, 0
    low, high = runs[np.diff(runs, axis=1).argmax()]
    return int(low), int(high)


def _covered(same: NDArray[np.bool_]) -> int:
    """Samples that lie in at least one of the blocks."""
    halves = np.zeros(len(same) + 1, dtype=bool)
    halves[:-1] |= same
    halves[1:] |= same
    return int(halves.sum()) * BLOCK_HOP


def _stands_alone(correlations: Floats) -> bool:
    """Whether the correlation in the middle is far above those not quite near it."""
    magnitudes = np.abs(correlations)
    middle = len(magnitudes) // 2
    others = np.concatenate(
        [magnitudes[: middle - ALONE_LENGTH], magnitudes[middle + ALONE_LENGTH :]]
    )
    return bool(magnitudes[middle] >= ALONE * others.max())


def _cosine(first: Waveform, second: Waveform) -> float:
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def _rms(waveform: Waveform) -> float:
    return float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2) + 1e-20))
