"""AIFF and AIFF-C: chunks with big-endian sizes, the audio in ``SSND``."""

import struct

from stapes.containers.chunks import Chunk, Grammar, chunks, measure
from stapes.containers.layout import Finding, Layout
from stapes.containers.source import Source
from stapes.errors import AudioError

GRAMMAR = Grammar(order="big")
SAMPLE_BYTES = {
    **dict.fromkeys((b"ulaw", b"ULAW", b"alaw", b"ALAW", b"raw "), 1),
    b"in24": 3,
    **dict.fromkeys((b"in32", b"fl32", b"FL32"), 4),
    **dict.fromkeys((b"fl64", b"FL64"), 8),
}
"""Bytes a sample of the codecs whose names settle it."""

INTEGER_CODECS = (b"NONE", b"twos", b"sowt")
COMPRESSED_CODECS = (b"ima4", b"GSM ", b"DWVW")


def inspect(source: Source) -> Layout:
    """Find the audio of an AIFF file.

    Raises:
        AudioError: no audio in it, or a codec that cannot be read.
    """
    found: dict[bytes, Chunk] = {}
    for chunk in chunks(source, 12, GRAMMAR):
        found.setdefault(chunk.name, chunk)
    if b"COMM" not in found or b"SSND" not in found:
        raise AudioError(f"{source.name}: no audio behind the AIFF header: copy it again")
    common = source.read_at(found[b"COMM"].start, min(found[b"COMM"].size, 1024))
    offset = source.read_at(found[b"SSND"].start, 4)
    if len(common) < 18 or len(offset) < 4:
        raise AudioError(f"{source.name}: its AIFF header is cut short: copy it again")
    skipped = 8 + int.from_bytes(offset, "big")
    body = found[b"SSND"]
    data = Chunk(b"SSND", body.start + skipped, max(body.size - skipped, 0))
    return _layout(source, common, data)


def _layout(source: Source, common: bytes, data: Chunk) -> Layout:
    form = source.read_at(0, 12)
    channels, promised, bits = struct.unpack(">HIH", common[:8])
    codec = common[18:22] if form[8:] == b"AIFC" else b"NONE"
    if codec not in (*INTEGER_CODECS, *SAMPLE_BYTES, *COMPRESSED_CODECS):
        raise AudioError(
            f"{source.name}: AIFF with codec {codec!r}, which cannot be read: "
            "convert it to PCM WAV or FLAC"
        )
    frame_length = 0
    if codec not in COMPRESSED_CODECS:
        frame_length = channels * SAMPLE_BYTES.get(codec, -(-bits // 8))
    byte_rate = _extended(common[8:18]) * max(frame_length, 1)
    length, findings = measure(
        source,
        data,
        grammar=GRAMMAR,
        form_end=int.from_bytes(form[4:8], "big") + 8,
        byte_rate=max(byte_rate, 1.0),
    )
    n_frames = None
    if frame_length:
        n_frames = max(length, 0) // frame_length
        length = n_frames * frame_length
        findings = findings or _about_count(promised, n_frames)
        common = common[:2] + struct.pack(">I", min(n_frames, 0xFFFFFFFF)) + common[6:]
    if length <= 0:
        raise AudioError(f"{source.name}: no audio behind the AIFF header: copy it again")
    return Layout(
        kind="AIFF",
        pieces=(_header(form[8:], common, length), range(data.start, data.start + length)),
        findings=findings,
        n_frames=n_frames,
        nul_level=-1.0 if codec == b"raw " else 0.0,
        exact_seek=bool(frame_length),
    )


def _about_count(promised: int, there: int) -> tuple[Finding, ...]:
    """The header counts the frames a second time; one of the counts may be wrong."""
    if promised > there:
        note = f"header promises {promised:,} frames, {there:,} are there"
        return (Finding("damaged", note),)
    if promised < there:
        note = f"header says {promised:,} frames, the file holds {there:,}"
        return (Finding("header-repaired", note),)
    return ()


def _header(kind: bytes, common: bytes, length: int) -> bytes:
    common += bytes(len(common) % 2)
    body = kind + b"COMM" + struct.pack(">I", len(common)) + common
    body += b"SSND" + struct.pack(">III", min(length + 8, 0xFFFFFFFF), 0, 0)
    return b"FORM" + struct.pack(">I", min(len(body) + length, 0xFFFFFFFF)) + body


def _extended(number: bytes) -> float:
    """An 80-bit IEEE 754 number: sign and exponent in 16 bits, mantissa in 64.

    >>> _extended(bytes.fromhex("400cfa00000000000000"))
    16000.0
    """
    exponent = (int.from_bytes(number[:2], "big") & 0x7FFF) - 16383 - 63
    return int.from_bytes(number[2:], "big") * 2.0 ** max(min(exponent, 64), -200)
