"""Recordings of every kind as bytes: written by libsndfile, or forged by hand."""

import functools
import io
import struct

import numpy as np
import soundfile

RATE = 16_000

KINDS = {
    "wav 16 bit": ("WAV", "PCM_16"),
    "wav 24 bit": ("WAV", "PCM_24"),
    "wav float": ("WAV", "FLOAT"),
    "wav mu-law": ("WAV", "ULAW"),
    "wav adpcm": ("WAV", "MS_ADPCM"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
"""Container and codec, as libsndfile calls them."""


def sound(*, seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A tone in noise, [T, channels], that ends at full loudness."""
    n = round(seconds * rate)
    noise = np.random.default_rng(0).normal(size=(n, channels))
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(n)[:, None] / rate) + 0.05 * noise


@functools.cache
def encoded(kind: str, *, seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> bytes:
    """An intact file of one of ``KINDS``."""
    container, codec = KINDS[kind]
    file = io.BytesIO()
    samples = sound(seconds=seconds, rate=rate, channels=channels)
    soundfile.write(file, samples, rate, format=container, subtype=codec)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """A RIFF chunk, padded to an even length."""
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def fmt(
    *, codec: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16, more: bytes = b""
) -> bytes:
    """A WAV format chunk."""
    frame = channels * bits // 8
    byte_rate = min(rate * frame, 2**32 - 1)
    head = struct.pack("<HHIIHH", codec, channels, rate, byte_rate, frame & 0xFFFF, bits)
    return chunk(b"fmt ", head + more)


def wav(
    samples: bytes, *, header: bytes | None = None, data_size: int | None = None, tail: bytes = b""
) -> bytes:
    """A WAV file by hand; ``data_size`` is what its header claims."""
    size = len(samples) if data_size is None else data_size
    body = (header or fmt()) + b"data" + struct.pack("<I", size) + samples + tail
    return b"RIFF" + struct.pack("<I", min(len(body) + 4, 2**32 - 1)) + b"WAVE" + body


def pcm(*, seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> bytes:
    """16-bit samples of the sound."""
    return (sound(seconds=seconds, rate=rate, channels=channels) * 32767).astype("<i2").tobytes()


def pages(ogg: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
    starts = [i for i in range(len(ogg)) if ogg[i : i + 4] == b"OggS"]
    return [ogg[a:b] for a, b in zip(starts, [*starts[1:], len(ogg)], strict=True)]


def flac_samples(flac: bytes, n_samples: int) -> bytes:
    """The same FLAC file with another number of samples in its header (36 bits)."""
    head = bytearray(flac)
    head[21] = head[21] & 0xF0 | n_samples >> 32
    head[22:26] = struct.pack(">I", n_samples & 0xFFFFFFFF)
    return bytes(head)


def without_xing(mp3: bytes) -> bytes:
    """An MP3 without the frame that says how many there are."""
    second = mp3.index(mp3[:2], 4)
    return mp3[second:]
