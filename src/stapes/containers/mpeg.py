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


class Header(NamedTuple):
    """What the four bytes at the start of a frame say."""

    version: int
    layer: int
    sample_rate: int
    mono: bool
    n_samples: int
    size: int

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
    """What the frame in front promises, and that frame itself with the true counts in it."""

    n_frames: int
    n_bytes: int
    at: int
    raw: bytes

    def corrected(self, n_frames: int, n_bytes: int) -> bytes:
        """The frame with other counts; what was not counted stays so."""
        counts = [(self.n_frames, n_frames), (self.n_bytes, n_bytes)]
        fields = b"".join(struct.pack(">I", min(new, 0xFFFFFFFF)) for old, new in counts if old)
        return self.raw[: self.at] + fields + self.raw[self.at + len(fields) :]


def inspect(source: Source, where: range, *, findings: tuple[Finding, ...] = ()) -> Layout:
    """Find and check the frames of MPEG audio.

    Args:
        source: the file.
        where: bytes of it that hold the frames.
        findings: what was found out before.

    Raises:
        AudioError: there are no frames.
    """
    where = _without_tags(source, where)
    start = find(source, where)
    first = _header_at(source, start) if start >= 0 else None
    if first is None:
        raise AudioError(f"{source.name}: no MP3 frames in it: copy it again")
    count = _count(source, start, first)
    begin = start + first.size if count else start
    walk = _walk(source, first, range(begin, where.stop))
    if not walk.n_frames:
        raise AudioError(f"{source.name}: no audio behind the MP3 header: copy it again")
    n_bytes = sum(map(len, walk.sound))
    front = count.corrected(walk.n_frames, n_bytes + first.size) if count else b""
    damage = walk.damage + _about_count(count, walk.n_frames, n_bytes + first.size, first)
    unsure = () if count else (Finding("length-unverifiable", "an MP3 that does not count frames"),)
    return Layout(
        kind="MP3",
        pieces=(front, *walk.sound),
        findings=(*findings, *damages(damage), *unsure),
        n_frames=walk.n_frames * first.n_samples,
        tolerance=GAPLESS_TOLERANCE,
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


def _count(source: Source, start: int, first: Header) -> Count | None:
    """The frame in front that counts the others, if there is one.

    Xing's stands behind the (empty) side information, Fraunhofer's always at 36.
    """
    raw = source.read_at(start, first.size)
    at = 4 + ((17 if first.mono else 32) if first.version == 3 else (9 if first.mono else 17))
    if raw[at : at + 4] in (b"Xing", b"Info") and len(raw) >= at + 16:
        has_frames, has_bytes = raw[at + 7] & 1, raw[at + 7] & 2
        numbers = struct.unpack_from(">II", raw, at + 8)
        n_frames = numbers[0] if has_frames else 0
        n_bytes = numbers[1 if has_frames else 0] if has_bytes else 0
        return Count(n_frames, n_bytes, at + 8, raw) if n_frames else None
    if raw[36:40] == b"VBRI" and len(raw) >= 54:
        n_bytes, n_frames = struct.unpack_from(">II", raw, 46)
        return Count(n_frames, n_bytes, len(raw), raw)
    return None


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
    return _header(int.from_bytes(raw) & 0xFFFFFEC0) if len(raw) == 4 else None


@lru_cache(4096)
def _header(word: int) -> Header | None:
    """Read a frame's header, without the bits that do not matter here; None if it is none."""
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
