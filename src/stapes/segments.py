"""Waveform -> segments and their start times; the gate on the peak. Pure, and blind to labels."""

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]

SILENCE_RMS = 1e-5
"""Below this RMS (-100 dB of full scale) a segment is silence and is not amplified."""


def normalise(waveforms: Waveform) -> Waveform:
    """Bring every waveform to mean 0 and RMS 1 by its own statistics, never by its label.

    Args:
        waveforms: [*, T].

    Returns:
        [*, T] float32; silence and constants become (finite) zeros.
    """
    centred = waveforms - waveforms.mean(axis=-1, keepdims=True, dtype=np.float32)
    power = np.einsum("...t,...t->...", centred, centred)[..., None] / centred.shape[-1]
    scale = 1.0 / np.maximum(np.sqrt(power), SILENCE_RMS)
    normalised: Waveform = (centred * scale).astype(np.float32, copy=False)
    return normalised


def pad(waveform: Waveform, *, segment_length: int) -> Waveform:
    """Zeros behind a waveform that is shorter than one segment: [T] -> [max(T, segment_length)]."""
    missing = segment_length - len(waveform)
    return np.pad(waveform, (0, missing)) if missing > 0 else waveform


def segment_starts(n_samples: int, *, segment_length: int, hop_length: int) -> NDArray[np.int64]:
    """First samples of the segments of a waveform; one (padded) if it is shorter than a segment.

    One begins every hop, and the last ends with the waveform, so that every sample is heard.

    >>> segment_starts(40_000, segment_length=16_000, hop_length=8_000).tolist()
    [0, 8000, 16000, 24000]
    >>> segment_starts(41_000, segment_length=16_000, hop_length=8_000).tolist()
    [0, 8000, 16000, 24000, 25000]
    >>> segment_starts(100, segment_length=16_000, hop_length=8_000).tolist()
    [0]
    """
    if hop_length < 1:
        raise ValueError(f"hop_length is {hop_length}: it must be at least 1 sample")
    last = max(n_samples - segment_length, 0)
    return np.append(np.arange(0, last, hop_length), last)


def cut(waveform: Waveform, starts: NDArray[np.int64], *, segment_length: int) -> Waveform:
    """Segments at the given starts: [T] -> [N, segment_length]; a short waveform is padded."""
    padded = pad(waveform, segment_length=segment_length)
    views = np.lib.stride_tricks.sliding_window_view(padded, segment_length)
    segments: Waveform = views[starts]
    return segments


def passes_gate(segment_peaks: NDArray[np.float32], *, gate: float) -> NDArray[np.bool_]:
    """Which segments of one clip are loud enough to say something: [N] -> [N].

    A segment passes if its peak reaches ``gate`` times the highest peak of the clip, so at
    least one always does, and quiet recordings are treated like loud ones.

    >>> passes_gate(np.float32([0.1, 0.02, 0.05]), gate=0.4).tolist()
    [True, False, True]
    """
    passed: NDArray[np.bool_] = segment_peaks >= gate * segment_peaks.max(initial=0.0)
    return passed


def gated_intervals(waveform: Waveform, *, segment_length: int, gate: float) -> NDArray[np.int64]:
    """All starts whose segment passes the gate, as disjoint intervals: [T] -> [M, 2].

    A start s passes if some loud sample p (at least ``gate`` times the clip's peak) has
    s <= p < s + segment_length; each loud sample therefore admits the starts
    [p - segment_length + 1, p], and the union of these is what rejection by the peak keeps.

    Returns:
        [M, 2]: first and one past the last start of each interval, ascending.
    """
    last_start = max(len(waveform) - segment_length, 0)
    magnitude = np.abs(waveform)
    loud = np.flatnonzero(magnitude >= gate * magnitude.max(initial=0.0))
    new_run = np.flatnonzero(np.diff(loud) > segment_length) + 1
    first = loud[np.concatenate([[0], new_run])] - segment_length + 1
    last = loud[np.concatenate([new_run - 1, [len(loud) - 1]])]
    intervals = np.stack([np.maximum(first, 0), np.minimum(last, last_start) + 1], axis=1)
    kept: NDArray[np.int64] = intervals[intervals[:, 0] < intervals[:, 1]]
    return kept
