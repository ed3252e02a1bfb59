"""Copies of recordings made on purpose: at other rates and levels, in other formats, cut."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
import soxr

RATE = 16_000
CUT_SECONDS = 1.5
"""Least length of each of two overlapping cuts."""

Make = Callable[[np.ndarray, np.random.Generator], list[tuple[str, bytes]] | None]
"""Two files of one recording, as suffix and content; None if it is too short."""


def encode(
    waveform: np.ndarray, rate: int = RATE, suffix: str = ".wav", **options: Any
) -> tuple[str, bytes]:
    """A file of a waveform at 16 kHz, at any rate and in any format."""
    file = io.BytesIO()
    formats = {".wav": "WAV", ".ogg": "OGG", ".mp3": "MP3", ".flac": "FLAC"}
    resampled = soxr.resample(waveform, RATE, rate) if rate != RATE else waveform
    soundfile.write(file, np.clip(resampled, -1, 1), rate, format=formats[suffix], **options)
    return suffix, file.getvalue()


def mp3(waveform: np.ndarray, rate: int = 44_100) -> tuple[str, bytes]:
    """MP3 at 64 kbit/s: libsndfile takes 0 for 320 and 1 for 32 kbit/s at this rate."""
    level = (320 - 64) / (320 - 32)
    return encode(waveform, rate, ".mp3", bitrate_mode="CONSTANT", compression_level=level)


def beside(change: Callable[[np.ndarray], tuple[str, bytes]]) -> Make:
    """The recording and a changed copy of it."""
    return lambda waveform, rng: [encode(waveform), change(waveform)]


def cut(seconds: float, change: Callable[[np.ndarray], tuple[str, bytes]] = encode) -> Make:
    """Two cuts with a common stretch of the given length anywhere; the second one is changed."""

    def make(waveform: np.ndarray, rng: np.random.Generator) -> list[tuple[str, bytes]] | None:
        shared, least = round(seconds * RATE), round(CUT_SECONDS * RATE)
        own = max(least - shared, round(0.25 * RATE))
        latest = len(waveform) - own - shared
        if latest < own:
            return None
        start = int(rng.integers(own, latest + 1))
        return [encode(waveform[: start + shared]), change(waveform[start:])]

    return make


COPIES: dict[str, Make] = {
    **{
        f"resampled to {rate} Hz": beside(lambda w, rate=rate: encode(w, rate))
        for rate in (8_000, 11_025, 22_050, 44_100, 48_000)
    },
    "-12 dB": beside(lambda w: encode(w * 10 ** (-12 / 20))),
    "-30 dB": beside(lambda w: encode(w * 10 ** (-30 / 20))),
    "inverted": beside(lambda w: encode(-w)),
    "MP3, 64 kbit/s": beside(mp3),
    "Ogg": beside(lambda w: encode(w, 44_100, ".ogg")),
    "Ogg, -12 dB, 11025 Hz, inverted": beside(
        lambda w: encode(-w * 10 ** (-12 / 20), 11_025, ".ogg")
    ),
    **{f"cuts sharing {s} s": cut(s) for s in (0.5, 0.75, 1.0, 2.0, 3.0)},
    **{f"cuts sharing {s} s, one in MP3": cut(s, mp3) for s in (0.5, 1.0, 3.0)},
    "cuts sharing 1.0 s, one at -12 dB and 22050 Hz in Ogg": cut(
        1.0, lambda w: encode(w * 10 ** (-12 / 20), 22_050, ".ogg")
    ),
}
