"""Sound pieces of a container -> mono float32 pieces at the file's own rate, checked on the way."""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from stapes.containers.layout import Finding, Layout
from stapes.containers.source import Source, View
from stapes.errors import AudioError
from stapes.interruption import deferred

Waveform = NDArray[np.float32]
Frames = NDArray[np.float32] | NDArray[np.int16]
NonFinite = Literal["refuse", "zero"]

SAMPLE_RATES_HZ = (1_000, 500_000)
"""Lowest and highest rate that is believed; ultrasound recorders reach 500 kHz."""

MOST_CHANNELS = 64
"""Up to here all channels are averaged; more is taken for a forged header."""

PIECE_SAMPLES = 1 << 18
"""Samples, over all channels, that are decoded at a time."""

LOUDEST = 2.0**31
"""Larger samples are absurd: even 32-bit integers written as they are stay below."""

DECODED_BYTES = 16 << 30
"""What any file may decode to (10 h of 48 kHz stereo are 14 GB): the end for bombs."""

DECODED_RATIO = 1_000
"""Larger files may decode to this many times their size; speech and music reach 50."""

NUL_TAIL_SECONDS = 0.25
"""Shorter NULs at the end are silence."""

EDGE_SECONDS, NEAR_SECONDS = 0.005, 0.1
ABRUPT = 0.3
"""A sound breaks off if its last 5 ms still peak above this share of the last 100 ms's RMS."""

FAINTEST_EDGE = 2.0**-12
"""And above this (-72 dB): what rounding and codecs leave at the end of a fade stays below."""


class SequentialFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read straight on.

    soundfile follows each read of a seekable file by a seek, which makes decoders of packed
    formats start anew.
    """

    def seekable(self) -> bool:
        """No, as far as soundfile is concerned."""
        return False


class Hush:
    """While any thread is inside, what the process writes to stderr is thrown away.

    The MP3 decoder inside libsndfile (mpg123) writes there of every broken frame, and cannot be
    told not to. What other threads write in these milliseconds is lost, too, so nothing but the
    decoding of MP3 is inside.
    """

    def __init__(self) -> None:
        """Nobody is inside."""
        self._lock, self._n_inside, self._kept = threading.Lock(), 0, -1

    def __enter__(self) -> None:
        """The first one in turns stderr away."""
        with self._lock:
            if not self._n_inside:
                self._kept = os.dup(2)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
            self._n_inside += 1

    def __exit__(self, *_: object) -> None:
        """The last one out brings it back."""
        with self._lock:
            self._n_inside -= 1
            if not self._n_inside:
                os.dup2(self._kept, 2)
                os.close(self._kept)


HUSH = Hush()


class Decoder:
    """Decodes one file, piece by piece.

    Attributes:
        sample_rate: of the file, in Hz.
        position: frames that were decoded or skipped so far.
    """

    def __init__(self, source: Source, layout: Layout, *, non_finite: NonFinite) -> None:
        """Open the decoder on the sound pieces.

        Raises:
            AudioError: it cannot read them, or the rate or channels are out of bounds.
        """
        self._findings = list(layout.findings)
        self._name, self._layout, self._non_finite = source.name, layout, non_finite
        self._most_bytes = max(DECODED_BYTES, DECODED_RATIO * source.size)
        self._view = View(source, layout.pieces)
        self._hush = HUSH if layout.noisy else nullcontext()
        try:
            with self._hush, deferred():
                self._file = SequentialFile(self._view)
        except soundfile.LibsndfileError as error:
            reason = self._view.error or AudioError(
                f"{self._name}: {layout.kind} that cannot be decoded "
                f"({error.error_string.rstrip('.')}): convert it to PCM WAV or FLAC"
            )
            raise reason from error
        self.sample_rate: int = self._file.samplerate
        self._check_bounds(self._file.channels)
        self.position = self._n_decoded = 0
        self._digest = hashlib.md5(usedforsecurity=False) if layout.md5 else None
        self._zeroed: list[tuple[int, float, float]] = []

    def _check_bounds(self, channels: int) -> None:
        lowest, highest = SAMPLE_RATES_HZ
        if not lowest <= self.sample_rate <= highest:
            raise AudioError(
                f"{self._name}: its header says {self.sample_rate:,} Hz: rates from {lowest:,} to "
                f"{highest:,} Hz can be read; correct the header"
            )
        if not 1 <= channels <= MOST_CHANNELS:
            raise AudioError(
                f"{self._name}: its header says {channels:,} channels: up to {MOST_CHANNELS} can "
                "be read; split it, or correct the header"
            )

    @property
    def findings(self) -> list[Finding]:
        """What is wrong with the file; complete after the last piece."""
        if not self._zeroed:
            return self._findings
        numbers, firsts, lasts = zip(*self._zeroed, strict=True)
        n, first, last = sum(numbers), firsts[0], lasts[-1]
        note = f"{n:,} samples between {first:.3f} s and {last:.3f} s were no numbers; now zero"
        return [*self._findings, Finding("damaged", note)]

    def tell(self, finding: Finding) -> None:
        """Add something that is wrong with the file."""
        self._findings.append(finding)

    def skip(self, n_frames: int) -> None:
        """Go on at a frame; only where the layout says that seeking is exact."""
        with deferred():
            self.position = self._file.seek(n_frames)
        self._digest = None

    def pieces(self) -> Iterator[Waveform]:
        """Mono pieces up to the end.

        Raises:
            AudioError: a bomb, samples that are no numbers, or a disk that does not answer.
        """
        channels = self._file.channels
        dtype = np.int16 if self._file.subtype == "PCM_16" else np.float32  # whole: half the work
        buffer = np.empty((max(1, PIECE_SAMPLES // channels), channels), dtype)
        weights = np.full(channels, 1 / channels, np.float32)
        whole = True
        while whole and len(frames := self._read(buffer)):
            whole = len(frames) == len(buffer)
            samples = self._finish(frames)
            yield samples[:, 0] if channels == 1 else samples @ weights
        self._check_end()

    def _read(self, buffer: Frames) -> Frames:
        """The next frames, [T, C]; fewer than asked for at the end and where decoding fails."""
        try:
            with self._hush, deferred():
                n_frames = len(self._file.read(out=buffer))
        except soundfile.LibsndfileError as error:
            n_frames = max(0, min(self._file.tell() - self.position, len(buffer)))
            time = (self.position + n_frames) / self.sample_rate
            reason = error.error_string.rstrip(".")
            self._findings.append(Finding("damaged", f"decoding ends at {time:.2f} s: {reason}"))
        if self._view.error is not None:
            raise self._view.error
        self._n_decoded += n_frames
        if self._n_decoded * buffer.itemsize * buffer.shape[1] > self._most_bytes:
            raise AudioError(
                f"{self._name}: decodes to more than {self._most_bytes >> 30} GiB, like a "
                "decompression bomb: convert it to PCM WAV if it is none"
            )
        return buffer[:n_frames]

    def _finish(self, frames: Frames) -> Waveform:
        """Take note of decoded frames: as samples in [-1, 1], what is no number put right."""
        if self._digest is not None:
            self._digest.update(_as_integers(frames, self._layout.bits))
        if frames.dtype == np.int16:
            samples = frames * np.float32(2.0**-15)
        else:
            samples = frames.astype(np.float32)
            if not max(samples.max(), -samples.min()) <= LOUDEST:  # NaN is not, either
                self._handle_non_finite(samples)
        self.position += len(frames)
        return samples

    def _handle_non_finite(self, frames: Waveform) -> None:
        bad = ~(np.abs(frames) <= LOUDEST)
        where = np.flatnonzero(bad.any(axis=1)) + self.position
        first, last = (float(frame) / self.sample_rate for frame in (where[0], where[-1]))
        if self._non_finite == "refuse":
            raise AudioError(
                f"{self._name}: samples that are NaN, infinite or absurdly large, first at "
                f"{first:.3f} s: export it again, or read it by stapes.audio.read with"
                " non_finite='zero'"
            )
        self._zeroed.append((int(bad.sum()), first, last))
        frames[bad] = 0.0

    def _check_end(self) -> None:
        """Compare what came with what should have come."""
        if any(finding.flag == "damaged" for finding in self._findings):
            return
        expected = self._layout.n_frames or self._file.frames
        if self.position < expected - self._layout.tolerance:
            promised, came = expected / self.sample_rate, self.position / self.sample_rate
            note = f"{promised:.2f} s are promised, {came:.2f} s could be decoded"
            self._findings.append(Finding("damaged", note))
        elif self._digest is not None and self._digest.digest() != self._layout.md5:
            note = "the audio differs from the MD5 in the header, somewhere between 0 s and "
            note += f"{self.position / self.sample_rate:.2f} s"
            self._findings.append(Finding("damaged", note))

    def close(self) -> None:
        """Close the decoder, not the source."""
        self._file.close()


def without_nul_tail(decoder: Decoder, *, level: float, until: float) -> Iterator[Waveform]:
    """Pieces of a decoder, without NULs that the sound breaks off into at the end.

    A recorder that lost power leaves a file of the right length, filled up with NULs. Silence
    that belongs to a recording is told from it by being short, or by a sound that fades.

    Args:
        decoder: where the pieces come from; is told what is left out.
        level: the sample that NULs decode to.
        until: the frame up to which the pieces are wanted; NULs that begin behind it harm nobody.
    """
    rate, n_held, recent = decoder.sample_rate, 0, np.empty(0, np.float32)
    near = round(NEAR_SECONDS * rate)
    for piece in decoder.pieces():
        end = _end_of_sound(piece, level)
        if end:
            yield from _constant(n_held, level)
            yield piece[:end]
            recent = np.concatenate([recent, piece[:end][-near:]])[-near:]
            n_held = 0
        n_held += len(piece) - end
    if n_held >= NUL_TAIL_SECONDS * rate and _breaks_off(recent, rate):
        if decoder.position - n_held < until:
            note = f"the sound breaks off into {n_held / rate:.2f} s of NULs at the end"
            decoder.tell(Finding("damaged", note))
    else:
        yield from _constant(n_held, level)


def _end_of_sound(piece: Waveform, level: float) -> int:
    """Where the run of one level at the end of a piece begins."""
    if piece[-1] != np.float32(level):
        return len(piece)
    sound = np.flatnonzero(piece != np.float32(level))
    return int(sound[-1]) + 1 if len(sound) else 0


def _breaks_off(recent: Waveform, rate: int) -> bool:
    if not len(recent):
        return False
    edge = np.abs(recent[-max(1, round(EDGE_SECONDS * rate)) :]).max()
    return bool(edge >= max(FAINTEST_EDGE, ABRUPT * np.sqrt(np.mean(np.square(recent)))))


def _constant(n_samples: int, level: float) -> Iterator[Waveform]:
    """A constant waveform in pieces of bearable length."""
    for start in range(0, n_samples, PIECE_SAMPLES):
        yield np.full(min(PIECE_SAMPLES, n_samples - start), level, np.float32)


def _as_integers(frames: Frames, bits: int) -> bytes:
    """Samples as FLAC's digest wants them: little-endian integers, channels interleaved."""
    if frames.dtype == np.int16:
        return frames.astype("<i2").tobytes()
    scaled = frames * np.float32(1 << bits - 1)
    if bits == 24:
        return scaled.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return scaled.astype("<i2" if bits == 16 else np.int8).tobytes()
