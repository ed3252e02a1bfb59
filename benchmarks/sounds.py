"""Sounds to measure with: noise, changing levels, synthesised calls, and real recordings."""

import os
from pathlib import Path

import numpy as np

from stapes import audio, synthesis
from stapes.segments import Waveform

RATE = 16_000
LEVELS_DB = (-45.0, -3.0)
"""Between these lie the levels of what is heard in the changing sound."""

PIECE_SECONDS = (0.05, 3.0)
"""Shortest and longest stretch at one level."""

SILENT_SHARE = 0.3
"""Of the stretches, as much is silent but for the last bits."""


def noise(seconds: float, *, rate: int = RATE, channels: int = 1) -> Waveform:
    """Steady noise with a RMS of 0.1: [T], or [T, channels]."""
    shape = (round(seconds * rate), channels)[: 1 if channels == 1 else 2]
    samples: Waveform = np.random.default_rng(0).standard_normal(shape, np.float32)
    return samples * np.float32(0.1)


def changing(seconds: float, *, rate: int = RATE) -> Waveform:
    """Noise that goes on and off, with levels that change at random over 40 dB: [T]."""
    rng = np.random.default_rng(1)
    waveform = noise(seconds, rate=rate) * np.float32(10)  # RMS 1
    start = 0
    while start < len(waveform):
        low, high = np.log(PIECE_SECONDS)
        end = start + round(np.exp(rng.uniform(low, high)) * rate)
        silent = rng.uniform() < SILENT_SHARE
        level_db = -90.0 if silent else rng.uniform(*LEVELS_DB) - 12.0
        waveform[start:end] *= np.float32(10 ** (level_db / 20))
        start = end
    return waveform


def calls(n_clips: int, *, seconds: float = 3.0) -> list[tuple[int, Waveform]]:
    """Synthesised barks and meows in turn: the class's index and the waveform of each."""
    rng = np.random.default_rng(2)
    labels = [i % len(synthesis.CLASSES) for i in range(n_clips)]
    return [(i, synthesis.clip(synthesis.CLASSES[i], rng, seconds=seconds)) for i in labels]


def recordings() -> Waveform | None:
    """The real cats and dogs, one behind the other: [T], where STAPES_DATA says where they are."""
    folder = Path(os.environ.get("STAPES_DATA", "")) / "cats_dogs"
    paths = sorted(folder.rglob("*.wav")) if "STAPES_DATA" in os.environ else []
    return np.concatenate([audio.read(path).waveform for path in paths]) if paths else None
