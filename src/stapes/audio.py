"""A path or bytes -> mono float32 waveform at a sample rate, in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from stapes.errors import AudioError

Waveform = NDArray[np.float32]
NonFinite = Literal["refuse", "zero"]


@dataclass(frozen=True, slots=True)
class Recording:
    """A waveform and what was found wrong with its file.

    Attributes:
        waveform: [T] float32, mono, in [-1, 1] nominally.
        sample_rate: Hz.
        flags: short machine words, such as "damaged".
        notes: the sentences behind them.
    """

    waveform: Waveform
    sample_rate: int
    flags: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def duration_seconds(self) -> float:
        """Length of the waveform in seconds."""
        return len(self.waveform) / self.sample_rate


class AudioStream:
    """Blocks of one file; a context manager and an iterator."""

    def __init__(
        self,
        source: str | Path | bytes,
        *,
        sample_rate: int,
        block_seconds: float,
        non_finite: NonFinite,
    ) -> None:
        self.sample_rate = sample_rate
        self.flags: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self._n_delivered = 0
        self._block_seconds = block_seconds
        self._name = "audio in memory" if isinstance(source, bytes) else str(source)
        try:
            self._file = soundfile.SoundFile(
                BytesIO(source) if isinstance(source, bytes) else str(source)
            )
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{self._name}: not audio ({error.error_string})") from error

    @property
    def duration_seconds(self) -> float:
        """Seconds delivered so far."""
        return self._n_delivered / self.sample_rate

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __iter__(self) -> Iterator[Waveform]:
        rate = self._file.samplerate
        resampler = soxr.ResampleStream(rate, self.sample_rate, 1, dtype="float32")
        length = max(1, round(self._block_seconds * rate))
        while True:
            frames = self._file.read(length, dtype="float32", always_2d=True)
            last = len(frames) < length
            block = resampler.resample_chunk(frames.mean(axis=1, dtype=np.float32), last=last)
            self._n_delivered += len(block)
            if len(block):
                yield block
            if last:
                return


def open_stream(
    source: str | Path | bytes,
    *,
    sample_rate: int = 16_000,
    block_seconds: float = 10.0,
    non_finite: NonFinite = "refuse",
) -> AudioStream:
    """Open a recording for reading in blocks."""
    return AudioStream(
        source, sample_rate=sample_rate, block_seconds=block_seconds, non_finite=non_finite
    )


def read(
    source: str | Path | bytes,
    *,
    sample_rate: int = 16_000,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    non_finite: NonFinite = "refuse",
) -> Recording:
    """Read a recording into memory."""
    with open_stream(source, sample_rate=sample_rate, non_finite=non_finite) as stream:
        blocks = list(stream)
    if not blocks:
        raise AudioError(f"{stream._name}: no audio")
    waveform = np.concatenate(blocks)
    end = len(waveform) if end_seconds is None else round(end_seconds * sample_rate)
    waveform = waveform[round(start_seconds * sample_rate) : end]
    return Recording(waveform, sample_rate, stream.flags, stream.notes)
