"""Classes that anything can tell apart: low tones and high ones."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
RANGES_HZ = {"high": (2000, 3000), "low": (300, 500)}


def tone(label: str, *, seed: int, seconds: float = 1.3, rate: int = RATE) -> np.ndarray:
    """One tone of its class with a little noise: float32 [T]."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * rng.uniform(*RANGES_HZ[label]) * time)
    return (wave + 0.02 * rng.normal(size=len(time))).astype(np.float32)


def write_tone(
    path: Path, label: str, *, seed: int, seconds: float = 1.3, level: float = 1.0
) -> Path:
    """A tone as a WAV file; any file name will do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * tone(label, seed=seed, seconds=seconds)
    with path.open("wb") as file:
        soundfile.write(file, wave, RATE, format="WAV")
    return path


def write_tones(root: Path, *, n_each: int = 8, seed: int = 0) -> Path:
    """Class folders of tones of 0.8 to 1.8 s."""
    rng = np.random.default_rng(seed)
    for label in RANGES_HZ:
        for i in range(n_each):
            number, seconds = int(rng.integers(2**31)), rng.uniform(0.8, 1.8)
            write_tone(root / label / f"{i}.wav", label, seed=number, seconds=seconds)
    return root
