"""Small recordings for tests of folders and tables."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def write_wav(path: Path, *, seconds: float = 0.2, content: str | None = None) -> Path:
    """A WAV file of noise that depends on ``content`` (the path, where none is given) alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32((content or str(path)).encode("utf-8", "surrogateescape"))
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE))
    with path.open("wb") as file:
        soundfile.write(file, noise.astype(np.float32), RATE, format="WAV", subtype="PCM_16")
    return path


def write_classes(root: Path, *, classes: Sequence[str] = ("cat", "dog"), n_each: int = 2) -> Path:
    """A folder of class folders with ``n_each`` different recordings ``0.wav``, ``1.wav``, ..."""
    for label in classes:
        for i in range(n_each):
            write_wav(root / label / f"{i}.wav")
    return root


def write_table(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    """A text file of the given lines, with Unix line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding, "surrogateescape"))
    return path


def rustle(seconds: float, *, seed: int) -> np.ndarray:
    """Noise that swells and fades at random, which nothing but itself resembles: float32 [T]."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    knots = np.arange(0, n + 1600, 1600)
    envelope = np.interp(np.arange(n), knots, rng.random(len(knots)))
    return (0.3 * envelope * rng.normal(size=n)).astype(np.float32)


def write_wave(path: Path, wave: np.ndarray) -> None:
    """A recording of these samples [T], and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE)
