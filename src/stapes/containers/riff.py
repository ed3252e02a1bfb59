"""WAV in all its kinds: RIFF, RIFX, RF64, BW64 and Sony's Wave64 hold the same two chunks."""

import struct
from dataclasses import replace
from typing import NamedTuple

from stapes.containers import mpeg
from stapes.containers.chunks import Chunk, Grammar, chunks, measure
from stapes.containers.layout import Layout
from stapes.containers.source import Source
from stapes.errors import AudioError

RIFF = Grammar()
RIFX = Grammar(order="big")
WAVE64 = Grammar(name_length=16, size_length=8, alignment=8, inclusive=True)

PCM, FLOAT, A_LAW, MU_LAW, MP3, EXTENSIBLE = 1, 3, 6, 7, 0x55, 0xFFFE
CODECS = {
    PCM: "PCM",
    0x02: "Microsoft ADPCM",
    FLOAT: "floating point",
    A_LAW: "A-law",
    MU_LAW: "mu-law",
    0x11: "IMA ADPCM",
    0x31: "GSM 6.10",
    0x38: "NMS ADPCM",
    0x40: "G.721 ADPCM",
    MP3: "MP3",
}
"""Codecs inside WAV that can be read (RFC 2361 lists the numbers)."""

OTHER_CODECS = {
    0x16: "G.723 ADPCM",
    0x22: "TrueSpeech",
    0x42: "G.723.1",
    0x45: "G.726 ADPCM",
    0x50: "MPEG layer 2",
    0x92: "AC-3",
    0xFF: "AAC",
    0x160: "Windows Media Audio 1",
    0x161: "Windows Media Audio 2",
    0x674F: "Vorbis",
    0x2000: "AC-3",
    0xF1AC: "FLAC",
}
NUL_LEVELS = {A_LAW: -5504 / 32768, MU_LAW: -32124 / 32768}
"""What a NUL byte decodes to (ITU-T G.711); unsigned 8-bit PCM has -1, all others 0."""


class Format(NamedTuple):
    """The chunk ``fmt``: how the samples are written."""

    codec: int
    channels: int
    sample_rate: int
    byte_rate: int
    frame_length: int
    bits: int


def inspect(source: Source) -> Layout:
    """Find the audio of a WAV file of any kind.

    Raises:
        AudioError: no audio in it, or a codec that cannot be read.
    """
    grammar, begin, form_end = _form(source)
    found: dict[bytes, Chunk] = {}
    for chunk in chunks(source, begin, grammar):
        found.setdefault(chunk.name[:4], chunk)
        if chunk.name[:4] == b"data":
            break
    if b"fmt " not in found:
        raise AudioError(f"{source.name}: a WAV header without a format: record or copy it again")
    form = _format(source, found[b"fmt "], grammar)
    if b"data" not in found:
        raise AudioError(f"{source.name}: no audio behind the WAV header: record or copy it again")
    data = found[b"data"]
    if b"ds64" in found:
        sizes = source.read_at(found[b"ds64"].start, 16)
        form_end = int.from_bytes(sizes[:8], "little") + 8
        data = data._replace(size=int.from_bytes(sizes[8:], "little"))
    return _layout(source, form, found | {b"data": data}, grammar=grammar, form_end=form_end)


def _form(source: Source) -> tuple[Grammar, int, int]:
    """Grammar, where the chunks begin, and where the file should end."""
    header = source.read_at(0, 40)
    if header[:4] == b"riff":
        return WAVE64, 40, int.from_bytes(header[16:24], "little")
    grammar = RIFX if header[:4] == b"RIFX" else RIFF
    return grammar, 12, int.from_bytes(header[4:8], grammar.order) + 8


def _format(source: Source, chunk: Chunk, grammar: Grammar) -> Format:
    """Read and check the chunk ``fmt``."""
    body = source.read_at(chunk.start, min(chunk.size, 40))
    if len(body) < 16:
        raise AudioError(f"{source.name}: its WAV header is cut short: record or copy it again")
    order = ">" if grammar.order == "big" else "<"
    codec, channels, rate, byte_rate, frame, bits = struct.unpack(order + "HHIIHH", body[:16])
    if codec == EXTENSIBLE and len(body) >= 26:
        codec = int.from_bytes(body[24:26], grammar.order)
    if codec not in CODECS:
        name = OTHER_CODECS.get(codec, "unknown")
        raise AudioError(
            f"{source.name}: WAV with codec 0x{codec:04X} ({name}), which cannot be read: "
            "convert it to PCM WAV or FLAC"
        )
    if codec in (PCM, FLOAT, A_LAW, MU_LAW) and (not channels or frame * 8 < channels * bits):
        raise AudioError(
            f"{source.name}: its header contradicts itself ({channels} channels of {bits} bits "
            f"in {frame} bytes): record or copy it again"
        )
    return Format(codec, channels, rate, byte_rate, frame, bits)


def _layout(
    source: Source, form: Format, found: dict[bytes, Chunk], *, grammar: Grammar, form_end: int
) -> Layout:
    uncompressed = form.codec in (PCM, FLOAT, A_LAW, MU_LAW)
    byte_rate = form.sample_rate * form.frame_length if uncompressed else form.byte_rate
    data = found[b"data"]
    length, findings = measure(
        source, data, grammar=grammar, form_end=form_end, byte_rate=max(byte_rate, 1)
    )
    if form.codec == MP3:
        layout = mpeg.inspect(source, range(data.start, data.start + length))
        # The chunk has a size, so that frames are not counted does not matter here.
        told = [finding for finding in layout.findings if finding.flag == "damaged"]
        return replace(layout, kind="WAV", findings=(*findings, *told))
    if uncompressed:
        length -= length % form.frame_length
    if not length:
        raise AudioError(f"{source.name}: no audio behind the WAV header: record or copy it again")
    return Layout(
        kind="WAV",
        pieces=(_header(source, found, length, grammar), range(data.start, data.start + length)),
        findings=findings,
        n_frames=length // form.frame_length if uncompressed else None,
        nul_level=-1.0 if (form.codec, form.bits) == (PCM, 8) else NUL_LEVELS.get(form.codec, 0.0),
        exact_seek=uncompressed,
    )


def _header(source: Source, found: dict[bytes, Chunk], length: int, grammar: Grammar) -> bytes:
    """A header as it should have been: RIFF, or RF64 (EBU Tech 3306) where 32 bits are too few."""
    big = grammar.order == "big"
    form = found[b"fmt "]
    body = source.read_at(form.start, min(form.size, 1 << 16))
    body += bytes(len(body) % 2)
    middle = b"WAVE"
    if length > 0xFFFF0000:
        sizes = struct.pack("<QQQI", length + len(body) + 72, length, 0, 0)
        middle += b"ds64" + struct.pack("<I", len(sizes)) + sizes
    middle += b"fmt " + struct.pack(">I" if big else "<I", len(body)) + body
    if b"fact" in found:
        fact = source.read_at(found[b"fact"].start, 4)
        middle += b"fact" + struct.pack(">I" if big else "<I", len(fact)) + fact
    short = min(length, 0xFFFFFFFF) if length <= 0xFFFF0000 else 0xFFFFFFFF
    total = min(len(middle) + 8 + length, 0xFFFFFFFF)
    name = b"RF64" if length > 0xFFFF0000 else b"RIFX" if big else b"RIFF"
    order = ">I" if big else "<I"
    return name + struct.pack(order, total) + middle + b"data" + struct.pack(order, short)
