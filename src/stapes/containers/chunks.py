"""Chunks: a name, a size, a body. The grammar that WAV, RF64, Wave64 and AIFF share."""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from stapes.containers.layout import Finding
from stapes.containers.source import Source

STREAMED_SIZES = frozenset({0x7FFFF000, 0x7FFFFFFF, 0x80000000, *range(0xFFFFFF00, 0x100000000)})
"""What programs write as the size when they do not know it yet (sox, arecord, ffmpeg)."""

SIZE_OF_NOTHING = 64
"""Sizes up to this are a header's placeholder if much more is behind them."""

HEADER_BYTES = 64
"""Sizes that are too large by no more than a header's length count the header, by mistake."""

TAIL_BYTES = 1 << 20
"""How far from the end chunks behind the audio are looked for if the sizes do not lead to them."""


class Grammar(NamedTuple):
    """How chunks of one format are written.

    Attributes:
        name_length: bytes of a chunk's name.
        size_length: bytes of its size.
        order: byte order of the size.
        alignment: chunks begin at multiples of this.
        inclusive: the size counts the chunk's own header.
    """

    name_length: int = 4
    size_length: int = 4
    order: Literal["little", "big"] = "little"
    alignment: int = 2
    inclusive: bool = False

    @property
    def header_length(self) -> int:
        """Bytes before a chunk's body."""
        return self.name_length + self.size_length


class Chunk(NamedTuple):
    """A chunk's name, where its body begins, and the size that its header promises."""

    name: bytes
    start: int
    size: int


def chunks(source: Source, offset: int, grammar: Grammar) -> Iterator[Chunk]:
    """Chunks from an offset on, as the headers claim them; ends where none fits any more."""
    while len(header := source.read_at(offset, grammar.header_length)) == grammar.header_length:
        name, size = header[: grammar.name_length], header[grammar.name_length :]
        length = int.from_bytes(size, grammar.order)
        length -= grammar.header_length if grammar.inclusive else 0
        if length < 0:
            return
        yield Chunk(name, offset + grammar.header_length, length)
        offset = _aligned(offset + grammar.header_length + length, grammar)


class Extent(NamedTuple):
    """The audio's length in bytes, and what had to be corrected to find it."""

    length: int
    findings: tuple[Finding, ...]


def measure(
    source: Source, data: Chunk, *, grammar: Grammar, form_end: int, byte_rate: float
) -> Extent:
    """Bytes of audio in the chunk that holds it: its header's word against what is there.

    Args:
        source: the file.
        data: the chunk of audio.
        grammar: of its chunks.
        form_end: where the outermost header says that the file ends.
        byte_rate: bytes of audio a second, for the notes.
    """
    there = source.size - data.start
    end = data.start + data.size
    if data.size in STREAMED_SIZES and data.size > there:
        return Extent(there, (Finding("length-unverifiable", "streamed: the header has no size"),))
    if end <= source.size and _leads_to_the_end(source, end, grammar):
        return Extent(data.size, _about_padding(source, end, form_end))
    tail = _tail(source, data.start, grammar)
    length = tail - data.start
    data = data._replace(size=data.size + _overflow(length - data.size, grammar))
    end = data.start + data.size
    promised, found = f"{data.size / byte_rate:.2f} s", f"{length / byte_rate:.2f} s"
    if data.size > length and (form_end != source.size or data.size - length > HEADER_BYTES):
        note = f"header promises {promised}, {found} are there"
        return Extent(length, (Finding("damaged", note),))
    overflowed = grammar.size_length == 4 and data.size >> 32
    if data.size > length or data.size <= SIZE_OF_NOTHING or tail < source.size or overflowed:
        note = f"header says {promised}, the file holds {found}"
        return Extent(length, (Finding("header-repaired", note),))
    return Extent(data.size, _about_rest(source, end, form_end=form_end))


def _overflow(missing: int, grammar: Grammar) -> int:
    """Whole 4 GiB by which a size of 32 bits has overflowed."""
    return missing >> 32 << 32 if grammar.size_length == 4 and missing > 0 else 0


def _about_padding(source: Source, end: int, form_end: int) -> tuple[Finding, ...]:
    """What to say if the byte behind an odd length was counted, but is not there."""
    if end == source.size == form_end - 1 and end % 2:
        return (Finding("damaged", "cut by one byte behind the audio, which is whole"),)
    return ()


def _about_rest(source: Source, end: int, *, form_end: int) -> tuple[Finding, ...]:
    """What to say of bytes behind the audio that are no whole chunks."""
    name = source.read_at(end, 4)
    if form_end > source.size + 1 and re.fullmatch(rb"[ -~]{4}", name):
        note = f"cut inside the chunk {name.decode()!r} behind the audio, which is whole"
        return (Finding("damaged", note),)
    if form_end > end + 1:
        note = f"{source.size - end:,} bytes behind the audio are no chunk and are ignored"
        return (Finding("header-repaired", note),)
    return ()


def _leads_to_the_end(source: Source, offset: int, grammar: Grammar) -> bool:
    """Whether whole chunks fill the file from an offset to its end, give or take the padding."""
    offset = _aligned(offset, grammar)
    for chunk in chunks(source, offset, grammar):
        if not re.match(rb"[ -~]{4}", chunk.name):
            return False
        offset = _aligned(chunk.start + chunk.size, grammar)
    return source.size <= offset < source.size + grammar.alignment


def _tail(source: Source, start: int, grammar: Grammar) -> int:
    """Where chunks that fill the end of the file begin; the file's end if there are none."""
    begin = max(start, source.size - TAIL_BYTES)
    known = rb"LIST|bext|id3 |ID3 |iXML|cue |smpl|inst|fact|_PMX|afsp|junk|JUNK|PEAK|ANNO|NAME|COMT"
    for match in re.finditer(known, source.read_at(begin, TAIL_BYTES)):
        if _leads_to_the_end(source, begin + match.start(), grammar):
            return begin + match.start()
    return source.size


def _aligned(offset: int, grammar: Grammar) -> int:
    return -(-offset // grammar.alignment) * grammar.alignment
