"""The kernels that make batches: segments drawn between samples, mixed, filtered, with noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stapes.native import Array, extension


def draw(
    sound: Array,
    firsts: NDArray[np.float64],
    rates: NDArray[np.float64],
    *,
    n_threads: int,
    out: Array,
) -> None:
    """out[b, i] = the sound at ``firsts[b] + rates[b] * i``, linearly between samples.

    Args:
        sound: [N], with 64 samples and more behind what is drawn.
        firsts: places of the first samples [B].
        rates: above 0 [B].
        n_threads: at least 1; no more than 256 are used.
        out: [B, T].

    Raises:
        ValueError: a row outside of the sound, or shapes that do not belong together.
    """
    extension().draw(sound, firsts, rates, n_threads, out)


@dataclass(frozen=True, slots=True)
class Variations:
    """What is done to the segments of one batch; each number is an array [B].

    Attributes:
        partners: rows that the segments are mixed with.
        own: factors of the segments, brought to mean 0 and RMS 1.
        other: factors of their partners, brought there too.
        taps: filters [B, K], K odd, the middle one of the sample itself.
        noise_starts: where their pieces of the noises begin.
        noise_levels: factors of these.
        rms: of what comes out.
    """

    partners: NDArray[np.int64]
    own: Array
    other: Array
    taps: Array
    noise_starts: NDArray[np.int64]
    noise_levels: Array
    rms: Array


def vary(
    segments: Array, by: Variations, noises: Array, *, least_rms: float, n_threads: int
) -> Array:
    """Normalise, mix, filter, add noise, normalise to a level: [B, T] -> [B, T].

    Args:
        segments: [B, T].
        by: what is done to each.
        noises: [M].
        least_rms: what is more silent is amplified as if it had this.
        n_threads: at least 1; no more than 256 are used.

    Raises:
        ValueError: shapes that do not belong together, or places that are not there.
    """
    out = np.empty_like(segments)
    mixed = by.partners, by.own, by.other
    noise = noises, by.noise_starts, by.noise_levels
    extension().vary(segments, *mixed, by.taps, *noise, by.rms, least_rms, n_threads, out)
    return out
