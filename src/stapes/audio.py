"""A path or bytes -> mono float32 waveform at a sample rate, in blocks.

What is damaged is found and told: the container is checked on its own
(:mod:`stapes.integrity`), the decoder sees only its sound parts, and what the decoder delivers is
compared with what the container promised.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import soxr

from stapes import integrity
from stapes.containers.source import Source
from stapes.decoding import Decoder, NonFinite, Waveform, without_nul_tail
from stapes.errors import AudioError

MOST_SAMPLES = 1 << 27
"""Longest waveform that :func:`read` returns: 512 MiB, 2.3 h at 16 kHz."""

END_TOLERANCE_SECONDS = 0.01
"""By how much a range may end behind the recording, for rounded annotations."""

SETTLING_SECONDS = 0.25
"""Audio before a range that is read, too, so that the resampler's filter has settled."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A waveform, and what was found wrong with its file.

    Attributes:
        waveform: [T] float32, mono, in [-1, 1] nominally.
        sample_rate: Hz.
        flags: words of :data:`stapes.containers.layout.FLAGS`, such as "damaged".
        notes: the sentences behind them.
        file_sample_rate: Hz, of the file itself.
    """

    waveform: Waveform
    sample_rate: int
    flags: tuple[str, ...]
    notes: tuple[str, ...]
    file_sample_rate: int

    @property
    def duration_seconds(self) -> float:
        """Length of the waveform in seconds."""
        return len(self.waveform) / self.sample_rate


class AudioStream:
    """Blocks of one recording in flat memory, however long it is: a context manager, iterated once.

    Attributes:
        sample_rate: Hz, of the blocks.
        name: of the file, for messages.
    """

    def __init__(
        self,
        source: str | Path | bytes,
        *,
        sample_rate: int,
        block_seconds: float,
        start_seconds: float,
        end_seconds: float | None,
        non_finite: NonFinite,
    ) -> None:
        """Open and check a recording; see :func:`open_stream`."""
        self.sample_rate = sample_rate
        self._block_length = max(1, round(block_seconds * sample_rate))
        self._start = round(start_seconds * sample_rate)
        self._end = None if end_seconds is None else round(end_seconds * sample_rate)
        self._n_delivered = 0
        self._source = Source(source)
        self.name = self._source.name
        try:
            if self._end is not None and self._end <= self._start:
                raise AudioError(
                    f"{self.name}: {start_seconds:g} s to {end_seconds:g} s is less than a sample:"
                    " correct the times"
                )
            self._layout = integrity.inspect(self._source)
            self._decoder = Decoder(self._source, self._layout, non_finite=non_finite)
        except BaseException:
            self._source.close()
            raise

    @property
    def file_sample_rate(self) -> int:
        """Hz, of the file itself."""
        return self._decoder.sample_rate

    @property
    def flags(self) -> tuple[str, ...]:
        """Words of :data:`stapes.containers.layout.FLAGS`; complete after the last block."""
        return tuple(dict.fromkeys(finding.flag for finding in self._decoder.findings))

    @property
    def notes(self) -> tuple[str, ...]:
        """The sentences behind the flags; complete after the last block."""
        return tuple(finding.note for finding in self._decoder.findings)

    @property
    def duration_seconds(self) -> float:
        """Length of what was delivered so far."""
        return self._n_delivered / self.sample_rate

    def __enter__(self) -> Self:
        """The stream itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()
        self._source.close()

    def __iter__(self) -> Iterator[Waveform]:
        """Blocks [T] of equal length, the last one shorter.

        Raises:
            AudioError: no audio, samples that are no numbers, or a range behind the end.
        """
        for block in _blocks(self._cut(), self._block_length):
            self._n_delivered += len(block)
            yield block
        if not self._n_delivered:
            raise AudioError(f"{self.name}: no audio in it: record or copy it again")

    def _cut(self) -> Iterator[Waveform]:
        """Samples of the range; decoding stops behind it."""
        position, rate = self._skip(), self._decoder.sample_rate
        until = math.inf if self._end is None else self._end / self.sample_rate * rate
        pieces = without_nul_tail(self._decoder, level=self._layout.nul_level, until=until)
        for piece in _resampled(pieces, rate, self.sample_rate):
            stop = len(piece) if self._end is None else self._end - position
            yield piece[max(self._start - position, 0) : max(stop, 0)]
            position += len(piece)
            if stop <= len(piece) and self._end is not None:
                return
        n_missing = 0 if self._end is None else self._end - position
        damaged = "damaged" in self.flags  # then what is there of the range is used
        tolerance = math.inf if damaged else END_TOLERANCE_SECONDS * self.sample_rate
        if self._start >= position or n_missing > tolerance:
            self._refuse_range(position)

    def _skip(self) -> int:
        """Jump towards the range; samples, at the wanted rate, that were jumped over."""
        rates = self._decoder.sample_rate, self.sample_rate
        period, new_period = (rate // math.gcd(*rates) for rate in rates)
        n_periods = int((self._start / self.sample_rate - SETTLING_SECONDS) * rates[0] / period)
        n_frames = n_periods * period
        if n_frames <= 0 or not self._layout.exact_seek or self._layout.n_frames is None:
            return 0
        if n_frames >= self._layout.n_frames:
            self._refuse_range(round(self._layout.n_frames / rates[0] * rates[1]))
        self._decoder.skip(n_frames)
        return n_periods * new_period

    def _refuse_range(self, n_samples: int) -> None:
        if not n_samples:
            return
        start, length = self._start / self.sample_rate, n_samples / self.sample_rate
        end = "the end" if self._end is None else f"{self._end / self.sample_rate:.2f} s"
        is_long, remedy = f"it is {length:.2f} s long", "correct the times"
        if "damaged" in self.flags:
            is_long, remedy = f"it breaks off at {length:.2f} s", "record or copy it again"
        raise AudioError(
            f"{self.name}: {start:.2f} s to {end} was asked for, but {is_long}: {remedy}"
        )


def open_stream(
    source: str | Path | bytes,
    *,
    sample_rate: int = 16_000,
    block_seconds: float = 10.0,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    non_finite: NonFinite = "refuse",
) -> AudioStream:
    """Open a recording for reading in blocks; the channels are averaged.

    Args:
        source: a file, or its bytes.
        sample_rate: wanted, in Hz.
        block_seconds: length of the blocks.
        start_seconds: where to begin.
        end_seconds: where to end; None for the recording's end.
        non_finite: what to do about NaN, infinite and absurdly large samples.

    Raises:
        AudioError: no audio in it that can be vouched for.
        ValueError: a number out of range, or a source that is neither.
    """
    if not isinstance(source, str | PathLike | bytes):
        raise ValueError(f"the source is a {type(source).__name__}: give a path, or a file's bytes")
    if sample_rate < 1 or not block_seconds > 0:
        raise ValueError(f"sample_rate {sample_rate} and block_seconds {block_seconds}: above 0")
    end = math.inf if end_seconds is None else end_seconds
    if not 0 <= start_seconds < end or not math.isfinite(start_seconds):
        raise ValueError(f"start_seconds {start_seconds} must be below end_seconds {end_seconds}")
    if non_finite not in ("refuse", "zero"):
        raise ValueError(f"non_finite is {non_finite!r}: give 'refuse' or 'zero'")
    return AudioStream(
        source,
        sample_rate=sample_rate,
        block_seconds=block_seconds,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        non_finite=non_finite,
    )


def read(
    source: str | Path | bytes,
    *,
    sample_rate: int = 16_000,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    non_finite: NonFinite = "refuse",
) -> Recording:
    """Read a recording, or a range of it, into memory; the channels are averaged.

    Of a range that a damaged recording breaks off in, what is there is read.

    Args:
        source: a file, or its bytes.
        sample_rate: wanted, in Hz.
        start_seconds: where to begin.
        end_seconds: where to end; None for the recording's end.
        non_finite: what to do about NaN, infinite and absurdly large samples.

    Raises:
        AudioError: no audio in it that can be vouched for, or more than :data:`MOST_SAMPLES`.
        ValueError: a number out of range.
    """
    samples = bytearray()  # grows in place, where joining blocks would need twice the memory
    with open_stream(
        source,
        sample_rate=sample_rate,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        non_finite=non_finite,
    ) as stream:
        for block in stream:
            samples += block.data.cast("B")
            if len(samples) > MOST_SAMPLES * block.itemsize:
                raise AudioError(
                    f"{stream.name}: longer than {MOST_SAMPLES / sample_rate / 3600:.1f} h, which "
                    "is too long for memory: read a range of it, or use open_stream"
                )
    waveform = np.frombuffer(samples, np.float32)
    return Recording(waveform, sample_rate, stream.flags, stream.notes, stream.file_sample_rate)


def _resampled(pieces: Iterator[Waveform], rate: int, wanted: int) -> Iterator[Waveform]:
    """The same sound at another rate: the pieces' length in total times wanted / rate."""
    if rate == wanted:
        yield from pieces
        return
    resampler = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ")
    for piece in pieces:
        yield resampler.resample_chunk(piece)
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def _blocks(pieces: Iterator[Waveform], length: int) -> Iterator[Waveform]:
    """The same samples in blocks of one length; the last may be shorter, none is empty."""
    waiting, n_waiting = [], 0
    for piece in pieces:
        waiting.append(piece)
        n_waiting += len(piece)
        if n_waiting >= length:
            joined = np.concatenate(waiting) if len(waiting) > 1 else piece
            whole = n_waiting - n_waiting % length
            for start in range(0, whole, length):
                yield joined[start : start + length]
            waiting, n_waiting = [joined[whole:]], n_waiting - whole
    if n_waiting:
        yield np.concatenate(waiting)
