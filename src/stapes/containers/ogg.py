"""Ogg: pages with a checksum, a number and a time stamp, and a mark on the last one (RFC 3533)."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from stapes.containers.layout import Layout, append, damages
from stapes.containers.source import Source
from stapes.errors import AudioError

HEADER = struct.Struct("<4sBBqIIIB")
FIRST_PAGE, LAST_PAGE = 2, 4
WINDOW_BYTES = 1 << 16
LONGEST_PAGE = 27 + 255 + 255 * 255
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Every byte with its bits in the opposite order."""

OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
"""Rates that Opus decodes to; the lowest that holds the original is what libsndfile chooses."""

OTHER_CODECS = {b"Speex   ": "Speex", b"\x80theora": "Theora", b"CELT    ": "CELT"}


class Page(NamedTuple):
    """One page whose checksum is right."""

    offset: int
    size: int
    kind: int
    position: int
    serial: int
    number: int


class Codec(NamedTuple):
    """What the first page of a stream says.

    Attributes:
        name: for people.
        position_rate: of the pages' time stamps, in Hz.
        sample_rate: of what the decoder delivers, in Hz.
        delay: positions before the first sample that is heard.
    """

    name: str
    position_rate: int
    sample_rate: int
    delay: int = 0


@dataclass(slots=True)
class Walk:
    """What the pages of one stream add up to."""

    codec: Codec
    first: Page
    last: Page
    position: int = 0
    sound: list[range] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)

    def add(self, page: Page) -> None:
        """Add a page, and a word about what lies before it."""
        if page.serial != self.first.serial or self.last.kind & LAST_PAGE:
            if page.kind & FIRST_PAGE and self.last.kind & LAST_PAGE:
                self.damage.append(f"a second stream from {self.seconds:.2f} s on is not read")
            return
        if self.sound and page.number != self.last.number + 1:
            self.damage.append(f"pages at {self.seconds:.2f} s are broken or missing")
        append(self.sound, range(page.offset, page.offset + page.size))
        self.last = page
        self.position = max(self.position, page.position)

    @property
    def seconds(self) -> float:
        """Time at the end of the last page."""
        return max(self.position - self.codec.delay, 0) / self.codec.position_rate


def inspect(source: Source, start: int = 0) -> Layout:
    """Find and check the pages of the first audio stream in an Ogg file.

    Raises:
        AudioError: no audio in it, or a codec that cannot be read.
    """
    walk = _walk(source, start)
    codec = walk.codec
    if not walk.last.kind & LAST_PAGE:
        walk.damage.append(f"its end is missing; {walk.seconds:.2f} s are there")
    n_frames = int(walk.seconds * codec.sample_rate) if codec.sample_rate else None
    return Layout(
        kind=f"Ogg {codec.name}",
        pieces=tuple(walk.sound),
        findings=tuple(damages(walk.damage)),
        n_frames=None if walk.damage else n_frames,
        tolerance=codec.sample_rate // 10,
    )


def _walk(source: Source, start: int) -> Walk:
    walk, unknown = None, "no audio stream"
    for page in pages(source, start):
        if walk is None and page.kind & FIRST_PAGE:
            body = source.read_at(page.offset, page.size)[HEADER.size + 1 :]
            if codec := _codec(body):
                walk = Walk(codec, page, page)
            else:
                unknown = next((OTHER_CODECS[key] for key in OTHER_CODECS if key in body), unknown)
        if walk is not None:
            walk.add(page)
    if walk is None:
        raise AudioError(f"{source.name}: Ogg with {unknown}: convert it to WAV or FLAC")
    if walk.first is walk.last:
        raise AudioError(f"{source.name}: no audio behind the Ogg header: copy it again")
    return walk


def _codec(body: bytes) -> Codec | None:
    """Read the first packet of a stream; None if it is not audio that can be read."""
    if body.startswith(b"\x01vorbis") and len(body) >= 30:
        rate = int.from_bytes(body[12:16], "little")
        return Codec("Vorbis", max(rate, 1), rate)
    if body.startswith(b"OpusHead") and len(body) >= 19:
        original = int.from_bytes(body[12:16], "little") or 48_000
        rate = next((rate for rate in OPUS_RATES if rate >= original), 48_000)
        return Codec("Opus", 48_000, rate, delay=int.from_bytes(body[10:12], "little"))
    if body.startswith(b"\x7fFLAC") and len(body) >= 51:
        rate = int.from_bytes(body[27:30]) >> 4
        return Codec("FLAC", max(rate, 1), rate)
    return None


def pages(source: Source, start: int) -> Iterator[Page]:
    """Pages with a right checksum, in their order; what lies between them is stepped over."""
    offset = start
    while 0 <= offset < source.size:
        page = page_at(source, offset)
        if page:
            yield page
            offset += page.size
        else:
            offset = _next_capture(source, offset + 1)


def page_at(source: Source, offset: int) -> Page | None:
    """The page at an offset; None if there is none or its checksum is wrong."""
    raw = source.read_at(offset, LONGEST_PAGE)
    if len(raw) < HEADER.size or not raw.startswith(b"OggS\0"):
        return None
    _, _, kind, position, serial, number, checksum, n_lacing = HEADER.unpack_from(raw)
    size = HEADER.size + n_lacing + sum(raw[HEADER.size : HEADER.size + n_lacing])
    raw = raw[:size]
    if len(raw) < size or crc32(raw[:22] + bytes(4) + raw[26:]) != checksum:
        return None
    return Page(offset, size, kind, position, serial, number)


def crc32(message: bytes) -> int:
    """CRC with polynomial 0x04C11DB7, most significant bit first, 0 at the start and the end.

    zlib's runs over the same polynomial with the bits of every byte reversed, and inverts the
    value before and after: so reverse the bytes, undo the inversions, reverse the result.

    >>> hex(crc32(b"123456789"))
    '0x89a1897f'
    """
    mirrored = zlib.crc32(message.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(REVERSED))


def _next_capture(source: Source, offset: int) -> int:
    """Where the next page may begin; the end of the file if nowhere."""
    while len(window := source.read_at(offset, WINDOW_BYTES)) >= 4:
        found = window.find(b"OggS")
        if found >= 0:
            return offset + found
        offset += len(window) - 3
    return source.size
