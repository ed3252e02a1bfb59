"""Arrays -> addresses that hold sound and pictures themselves, for pages without a network."""

import base64
import io
import struct
import zlib

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from stapes.segments import Waveform


def audio_uri(waveform: Waveform, *, sample_rate: int) -> str:
    """A waveform as 16-bit FLAC, which loses nothing and which every browser plays: [T] -> str.

    Args:
        waveform: within -1 and 1; clipped beyond.
        sample_rate: Hz.
    """
    buffer = io.BytesIO()
    pcm = (np.clip(waveform, -1, 1) * 32767).astype(np.int16)
    sf.write(buffer, pcm, sample_rate, format="FLAC", subtype="PCM_16")
    return _uri("audio/flac", buffer.getvalue())


def picture_uri(shares: NDArray[np.floating], *, colour: str) -> str:
    """Numbers as a picture that fades from nothing to one colour: [R, C] -> PNG in a str.

    Only how opaque a pixel is tells its number, so the picture fits light and dark pages.

    Args:
        shares: from 0, transparent, to 1, opaque; the first row is the uppermost.
        colour: "#rrggbb".

    Source: Portable Network Graphics Specification (third edition), W3C 2025.
    """
    levels = np.rint(np.clip(np.nan_to_num(shares), 0, 1) * 255).astype(np.uint8)
    height, width = levels.shape
    rows = np.pad(levels, ((0, 0), (1, 0))).tobytes()  # every row begins with filter type 0
    eight_bit_palette = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", eight_bit_palette),
            _chunk(b"PLTE", bytes.fromhex(colour.removeprefix("#")) * 256),
            _chunk(b"tRNS", bytes(range(256))),
            _chunk(b"IDAT", zlib.compress(rows, 9)),
            _chunk(b"IEND", b""),
        )
    )
    return _uri("image/png", png)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
