"""What a page plays and draws of a recording: its loudest part, its outline, its spectrogram."""

import numpy as np
from numpy.typing import NDArray

from stapes.inspection import envelope
from stapes.segments import Waveform

FLOOR_DB = -70.0
"""Below the loudest point of a spectrogram by this much, nothing is drawn."""


def loudest_start(waveform: Waveform, *, length: int) -> int:
    """Where the stretch of ``length`` samples begins that holds most energy: [T] -> index.

    >>> loudest_start(np.array([0, 0, 0, 1, 2, 1, 0, 0], np.float32), length=3)
    3
    """
    if len(waveform) <= length:
        return 0
    energy = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    return int(np.argmax(energy[length:] - energy[:-length]))


def peak_db(waveform: Waveform) -> float:
    """The highest sample in decibels of full scale; -inf of silence or of nothing."""
    peak = float(np.abs(waveform).max(initial=0.0))
    return 20 * float(np.log10(peak)) if peak > 0 else float("-inf")


def outline(waveform: Waveform, *, n_columns: int, height: int, full_scale: bool = False) -> str:
    """A waveform as an SVG path of upright strokes, one unit wide: [T] -> path.

    Args:
        waveform: any length.
        n_columns: strokes.
        height: of the drawing, its middle is silence.
        full_scale: 1 fills the height; otherwise the recording's own peak does.

    >>> outline(np.array([0.5, -0.5, 0, 0], np.float32), n_columns=2, height=20)
    'M.5 0V20M1.5 9.5V10.5'
    """
    if not len(waveform):
        return ""
    low, high = envelope(waveform, n_columns=n_columns)
    peak = 1.0 if full_scale else float(np.abs(waveform).max()) or 1.0
    half = height / 2
    tops = np.minimum(half - np.minimum(high / peak, 1) * half, half - 0.5)
    ends = np.maximum(half - np.maximum(low / peak, -1) * half, half + 0.5)
    strokes = zip(range(len(tops)), tops.tolist(), ends.tolist(), strict=True)
    return "".join(f"M{x or ''}.5 {top:.3g}V{end:.3g}" for x, top, end in strokes)


def spectrogram(
    waveform: Waveform, *, n_columns: int = 300, n_rows: int = 64
) -> NDArray[np.float64]:
    """How loud each pitch is at each time: [T] -> [R, C] from 0 to 1, the highest pitch first.

    1 is the loudest point, 0 what lies ``FLOOR_DB`` below it. Rows share the frequencies from
    0 to half the sample rate evenly.

    Args:
        waveform: any length.
        n_columns: moments; fewer of a short recording.
        n_rows: bands; the frames have twice as many samples, times four.
    """
    length = 8 * n_rows
    padded = np.pad(waveform, length // 2)
    n_columns = max(1, min(n_columns, len(waveform) // (length // 8)))
    starts = np.linspace(0, max(len(waveform) - 1, 0), n_columns).astype(np.int64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[starts]  # [C, length]
    power = np.abs(np.fft.rfft(frames * np.hanning(length), axis=1)[:, 1:]) ** 2
    bands = power.reshape(n_columns, n_rows, -1).mean(axis=2).T[::-1]  # [R, C]
    loudest = float(bands.max())
    if loudest == 0:
        return np.zeros_like(bands)
    decibels = 10 * np.log10(np.maximum(bands / loudest, 10 ** (FLOOR_DB / 10)))
    shares: NDArray[np.float64] = 1 - decibels / FLOOR_DB
    return shares
