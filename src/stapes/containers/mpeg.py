"""MPEG audio (MP3 and layers 1 and 2): frames that each say their own size, and nothing else.

Encoders put one silent frame in front that counts the others (Xing, Info or VBRI). Only with it
can a cut file be told from a whole one. The decoder is given sound frames only: nothing to
resynchronise on, and nothing to complain about on stderr.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from stapes.containers.layout import Finding, Layout, append, damages
from stapes.containers.source import Source
from stapes.errors import AudioError

CHAIN_LENGTH = 4
"""Frames in a row that chance does not make."""

SEARCH_BYTES = 1 << 24
"""How far in front of the first frame other things may be."""

WINDOW_BYTES = 1 << 16
GAPLESS_TOLERANCE = 8192 + 1152
"""Samples that encoder's delay and padding may take away at both ends."""

RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""By the version's bits: MPEG 1, 2 and 2.5 (ISO/IEC 11172-3, 13818-3)."""

KBITS = {
    (3, 1): range(0, 449, 32),
    (3, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by version and layer."""

COUNTED_BOTH = tuple(bytes([bits]) for bits in range(16) if bits & 3 == 3)
"""Xing's flags if both frames and bytes are counted."""


class Header(NamedTuple):
    """What the four bytes at the start of a frame say."""

    version: int
    layer: int
    sample_rate: int
    mono: bool
    n_samples: int
    size: int

    @property
    def side_end(self) -> int:
        """Where the side information of layer 3 ends, and Xing's counts begin."""
        lengths = (17, 32) if self.version == 3 else (9, 17)
        return 4 + lengths[not self.mono]

    def fits(self, other: "Header | None") -> bool:
        """Whether two frames can be of one stream."""
        return other is not None and self[:4] == other[:4]


@dataclass(slots=True)
class Walk:
    """What the sound frames of a file add up to."""

    n_frames: int = 0
    sound: list[range] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


class Count(NamedTuple):
    """What the frame in front promises; 0 bytes if it does not count them."""

    n_frames: int
    n_bytes: int = 0


def inspect(source: Source, where: range) -> Layout:
    """Find and check the frames of MPEG audio.

    Args:
        source: the file.
        where: bytes of it that hold the frames.

    Raises:
        AudioError: there are no frames.
    """
    where = _without_tags(source, where)
    start = find(source, where)
    first = _header_at(source, start) if start >= 0 else None
    if first is None:
        raise AudioError(f"{source.name}: no MP3 frames in it: copy it again")
    front = source.read_at(start, first.size)
    count = _count(front, first)
    walk = _walk(source, first, range(start + first.size if count else start, where.stop))
    if not walk.n_frames:
        raise AudioError(f"{source.name}: no audio behind the MP3 header: copy it again")
    n_bytes = sum(map(len, walk.sound))
    damage = walk.damage + _about_count(count, walk.n_frames, n_bytes + first.size, first)
    unsure = () if count else (Finding("length-unverifiable", "an MP3 that does not count frames"),)
    return Layout(
        kind="MP3",
        pieces=(_counting_frame(front, first, walk.n_frames, n_bytes), *walk.sound),
        findings=(*damages(damage), *unsure),
        n_frames=walk.n_frames * first.n_samples,
        tolerance=GAPLESS_TOLERANCE if count else first.n_samples,
        noisy=True,
    )


def _about_count(count: Count | None, n_frames: int, n_bytes: int, first: Header) -> list[str]:
    """The promised number of frames against those found.

    Some encoders count the frame in front, too; then the number of bytes decides.
    """
    missing = count.n_frames - n_frames if count else 0
    if count is None or missing < 1 or (missing == 1 and 0 < count.n_bytes <= n_bytes):
        return []
    promised, found = (n * first.n_samples / first.sample_rate for n in (count.n_frames, n_frames))
    return [f"header promises {promised:.2f} s, {found:.2f} s are there"]


def _count(front: bytes, first: Header) -> Count | None:
    """What the frame in front counts; None if it is a frame like any other.

    Xing's counts stand behind the (empty) side information, Fraunhofer's always at 36.
    """
    at = first.side_end
    if front[at : at + 4] in (b"Xing", b"Info") and len(front) >= at + 16:
        numbers = struct.unpack_from(">II", front, at + 8)
        has_frames, has_bytes = front[at + 7] & 1, front[at + 7] & 2
        if has_frames and numbers[0]:
            return Count(numbers[0], numbers[1] if has_bytes else 0)
    if front[36:40] == b"VBRI" and len(front) >= 54:
        n_bytes, n_frames = struct.unpack_from(">II", front, 46)
        return Count(n_frames, n_bytes)
    return None


def _counting_frame(front: bytes, first: Header, n_frames: int, n_bytes: int) -> bytes:
    """A frame in front that tells the decoder the true counts.

    Without it libsndfile guesses the length from the size of the first frame, and stops there.
    Only layer 3 knows such frames. What the file's own one says of delay and padding is kept.
    """
    if first.layer != 3:
        return b""
    at = first.side_end
    if front[at : at + 4] in (b"Xing", b"Info") and front[at + 7 : at + 8] in COUNTED_BOTH:
        counts = struct.pack(">II", n_frames, min(n_bytes + len(front), 0xFFFFFFFF))
        return front[: at + 8] + counts + front[at + 16 :]
    word = int.from_bytes(front[:4]) & 0xFFFF0DFF | 0x10000
    words = (word | kbit_index << 12 for kbit_index in range(1, 15))
    word, size = next((w, h.size) for w in words if (h := _parsed(w)) and h.size >= at + 16)
    tag = b"Xing" + struct.pack(">III", 3, n_frames, min(n_bytes + size, 0xFFFFFFFF))
    return (word.to_bytes(4).ljust(at, b"\0") + tag).ljust(size, b"\0")


def _walk(source: Source, first: Header, where: range) -> Walk:
    """Follow the frames; keep the sound ones, remember what lies between them."""
    walk, offset = Walk(), where.start
    while offset < where.stop:
        header = _header_at(source, offset)
        following = offset + header.size if header else offset
        fits = first.fits(header) and following <= where.stop
        if fits and (following == where.stop or first.fits(_header_at(source, following))):
            append(walk.sound, range(offset, following))
            walk.n_frames += 1
            offset = following
            continue
        resumed = _resume(source, first, range(offset + 1, where.stop))
        if resumed < 0 and fits:  # the last frame; what follows is no audio
            append(walk.sound, range(offset, following))
            walk.n_frames += 1
            break
        time = walk.n_frames * first.n_samples / first.sample_rate
        if resumed >= 0:
            walk.damage.append(f"{resumed - offset:,} bytes at {time:.2f} s are no whole frames")
        elif source.read_at(offset, 1) == b"\xff":
            walk.damage.append(f"the last frame, at {time:.2f} s, is cut short")
        offset = resumed if resumed >= 0 else where.stop
    return walk


def _resume(source: Source, first: Header, where: range) -> int:
    """Where frames of the same stream go on; -1 if nowhere."""
    for offset in _candidates(source, where):
        if first.fits(_header_at(source, offset)) and _is_chain(source, offset, where.stop):
            return offset
    return -1


def _without_tags(source: Source, where: range) -> range:
    """The same bytes without the tags that players put at the end (ID3v1, APEv2)."""
    stop = where.stop
    if source.read_at(stop - 128, 3) == b"TAG":
        stop -= 128
    footer = source.read_at(stop - 32, 32)
    if footer.startswith(b"APETAGEX"):
        has_header = 32 if footer[23] & 0x80 else 0
        stop -= int.from_bytes(footer[12:16], "little") + has_header
    return range(where.start, stop) if stop > where.start else where


def find(source: Source, where: range) -> int:
    """Where the first frames in a row begin; -1 if nowhere."""
    for offset in _candidates(source, where[:SEARCH_BYTES]):
        if _is_chain(source, offset, where.stop):
            return offset
    return -1


def _is_chain(source: Source, offset: int, end: int) -> bool:
    """Whether frames of one stream follow each other, for a while or to the very end."""
    first = header = _header_at(source, offset)
    for _ in range(CHAIN_LENGTH - 1):
        if header is None or first is None or not first.fits(header):
            return False
        offset += header.size
        if offset == end:
            return True
        header = _header_at(source, offset)
    return first is not None and first.fits(header)


def _candidates(source: Source, where: range) -> Iterator[int]:
    """Everything that looks like the first two bytes of a frame."""
    for begin in range(where.start, where.stop, WINDOW_BYTES):
        window = source.read_at(begin, min(WINDOW_BYTES + 1, where.stop - begin))
        for match in re.finditer(rb"\xff[\xe2-\xff]", window):
            yield begin + match.start()


def _header_at(source: Source, offset: int) -> Header | None:
    raw = source.read_at(offset, 4)
    return _parsed(int.from_bytes(raw)) if len(raw) == 4 else None


def _parsed(word: int) -> Header | None:
    """A frame's header from its four bytes; None if they are none."""
    return _parsed_relevant(word & 0xFFFFFEC0)


@lru_cache(4096)
def _parsed_relevant(word: int) -> Header | None:
    """The same, without the bits that do not matter here, so that few differ."""
    version, layer = word >> 19 & 3, 4 - (word >> 17 & 3)
    kbit_index, rate_index = word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer == 4:
        return None
    if kbit_index in (0, 15) or rate_index == 3:
        return None
    sample_rate = RATES[version][rate_index]
    kbits = KBITS[3 if version == 3 else 2, layer if version == 3 else min(layer, 2)][kbit_index]
    n_samples = 384 if layer == 1 else 1152 if layer == 2 or version == 3 else 576
    slot = 4 if layer == 1 else 1
    size = (n_samples * kbits * 125 // sample_rate // slot + (word >> 9 & 1)) * slot
    return Header(version, layer, sample_rate, word >> 6 & 3 == 3, n_samples, size)
