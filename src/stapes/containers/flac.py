"""FLAC: a header that promises, then frames that each carry their number and two checksums.

The format is RFC 9639. Every frame is found and checked without decoding it; the decoder is
given sound frames only, and fills the gaps with silence of the right length.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stapes.containers.layout import Finding, Layout, append, damages
from stapes.containers.source import Source
from stapes.errors import AudioError

WINDOW_BYTES = 1 << 20
LONGEST_HEADER = 16
LOOK_AHEAD = 4
LONGEST_GAP_SECONDS = 60.0
"""Frames that claim to be further on than this are taken for forged."""

BLOCK_LENGTHS = (0, 192, *(144 << i for i in range(2, 6)), 0, 0, *(256 << i for i in range(8)))
SAMPLE_RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
SAMPLE_BITS = (0, 8, 12, 0, 16, 20, 24, 32)
READABLE_BITS = (8, 16, 24)


class StreamInfo(NamedTuple):
    """The header that stands for the whole stream."""

    body: bytes
    max_block_length: int
    sample_rate: int
    channels: int
    bits: int
    n_frames: int
    md5: bytes


class Frame(NamedTuple):
    """What one frame's header says."""

    offset: int
    number: int
    variable: bool
    length: int
    sample_rate: int
    channels: int
    bits: int


@dataclass(slots=True)
class Walk:
    """What the sound frames of a file add up to.

    Attributes:
        offset: behind the last of them, in bytes.
        end: behind the last of them, in samples.
        sound: where they are.
        damage: what lies between them.
    """

    offset: int
    end: int = 0
    sound: list[range] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def inspect(source: Source, start: int = 0) -> Layout:
    """Find and check the frames of a FLAC file.

    Raises:
        AudioError: no sound frame in it, a bit depth that cannot be read, or a rate or number
            of channels that changes midway.
    """
    info, audio = _header(source, start)
    if info.bits not in READABLE_BITS:
        raise AudioError(
            f"{source.name}: FLAC of {info.bits} bits, which cannot be read: convert it to 16 or 24"
        )
    walk = _walk(source, info, audio)
    if not walk.sound:
        raise AudioError(f"{source.name}: no audio behind the FLAC header: copy it again")
    findings = damages(walk.damage) + _about_length(info, walk.end)
    # The digest is over all samples: once some are missing it cannot tell any more.
    sound = not any(finding.flag == "damaged" for finding in findings)
    body = info.body[:4] + bytes(6) + info.body[10:13]
    body += bytes([info.body[13] & 0xF0 | walk.end >> 32]) + (walk.end & 0xFFFFFFFF).to_bytes(4)
    return Layout(
        kind="FLAC",
        pieces=(b"fLaC\x80\x00\x00\x22" + body + bytes(16), *walk.sound),
        findings=tuple(findings),
        n_frames=walk.end,
        md5=info.md5 if sound and any(info.md5) else b"",
        bits=info.bits,
        exact_seek=sound,
    )


def _about_length(info: StreamInfo, there: int) -> list[Finding]:
    """The header's number of samples against the frames'."""
    promised, found = info.n_frames / info.sample_rate, there / info.sample_rate
    if info.n_frames > there:
        note = f"header promises {promised:.2f} s, {found:.2f} s are there"
        return [Finding("damaged", note)]
    if not info.n_frames and not any(info.md5):
        return [Finding("length-unverifiable", "streamed: the header has no length")]
    if 0 < info.n_frames < there:
        note = f"header says {promised:.2f} s, the file holds {found:.2f} s"
        return [Finding("header-repaired", note)]
    return []


def _header(source: Source, start: int) -> tuple[StreamInfo, int]:
    """STREAMINFO, and where the frames begin."""
    trouble = f"{source.name}: its FLAC header is broken: copy it again"
    head = source.read_at(start + 4, 38)
    if len(head) < 38 or head[0] & 0x7F != 0 or int.from_bytes(head[1:4]) != 34:
        raise AudioError(trouble)
    body = head[4:]
    packed = int.from_bytes(body[10:18])
    info = StreamInfo(
        body=body,
        max_block_length=int.from_bytes(body[2:4]),
        sample_rate=packed >> 44,
        channels=(packed >> 41 & 7) + 1,
        bits=(packed >> 36 & 31) + 1,
        n_frames=packed & (1 << 36) - 1,
        md5=body[18:],
    )
    if not info.sample_rate:
        raise AudioError(trouble)
    offset, last = start + 42, head[0] & 0x80
    while not last and len(block := source.read_at(offset, 4)) == 4:
        following = offset + 4 + int.from_bytes(block[1:])
        if following > source.size or block[0] & 0x7F == 0x7F:
            break
        offset, last = following, block[0] & 0x80
    return info, offset


def _walk(source: Source, info: StreamInfo, start: int) -> Walk:
    """Follow the frames; keep the sound ones, remember what lies between them.

    What looks like a header may be audio, so a frame may end at the second or third of them.
    """
    walk = Walk(start)
    end = source.size - (128 if source.read_at(source.size - 128, 3) == b"TAG" else 0)
    headers = _headers(source, start, end)
    ahead = deque(islice(headers, LOOK_AHEAD))
    while ahead:
        ends = [frame.offset for frame in islice(ahead, 1, None)]
        ends += [end] if len(ahead) < LOOK_AHEAD else []
        i = next((i for i, stop in enumerate(ends) if _is_sound(source, info, ahead[0], stop)), -1)
        if i >= 0:
            _accept(source, info, walk, ahead[0], ends[i])
        for _ in range(max(i, 0) + 1):
            ahead.popleft()
        ahead.extend(islice(headers, LOOK_AHEAD - len(ahead)))
    if walk.offset < end:
        walk.damage.append(f"from {walk.end / info.sample_rate:.2f} s on nothing is readable")
    return walk


def _is_sound(source: Source, info: StreamInfo, frame: Frame, stop: int) -> bool:
    """Whether the bytes up to ``stop`` are one frame, by its checksum."""
    channels = max(info.channels, frame.channels)
    longest = (info.bits + 1) * channels * max(info.max_block_length, frame.length) // 8 + 256
    length = stop - frame.offset
    return length <= longest and crc16(source.read_at(frame.offset, length)) == 0


def _accept(source: Source, info: StreamInfo, walk: Walk, frame: Frame, stop: int) -> None:
    """Add a sound frame, and a word about what lies before it."""
    if (frame.sample_rate or info.sample_rate, frame.channels) != (info.sample_rate, info.channels):
        raise AudioError(
            f"{source.name}: its header says {info.sample_rate} Hz and {info.channels} channels, a "
            f"frame at {walk.end / info.sample_rate:.2f} s says {frame.sample_rate} Hz and "
            f"{frame.channels}: convert it to WAV with another program"
        )
    first = frame.number * (1 if frame.variable else info.max_block_length)
    before, now = walk.end / info.sample_rate, first / info.sample_rate
    offset, walk.offset = walk.offset, stop
    if not 0 <= now - before <= LONGEST_GAP_SECONDS:
        walk.damage.append(f"at {before:.2f} s comes a frame that belongs to {now:.2f} s")
        return
    if now > before:
        walk.damage.append(f"{before:.2f} s to {now:.2f} s are broken or missing")
    elif frame.offset > offset:
        walk.damage.append(f"{frame.offset - offset:,} foreign bytes at {before:.2f} s")
    append(walk.sound, range(frame.offset, stop))
    walk.end = first + frame.length


def _headers(source: Source, start: int, end: int) -> Iterator[Frame]:
    """Everything that looks like a frame's header, its own checksum included."""
    for begin in range(start, end, WINDOW_BYTES):
        window = source.read_at(begin, min(WINDOW_BYTES + LONGEST_HEADER, end - begin))
        for match in re.finditer(rb"\xff[\xf8\xf9]", window[: WINDOW_BYTES + 1]):
            header = window[match.start() : match.start() + LONGEST_HEADER]
            if frame := _frame(header, begin + match.start()):
                yield frame


def _frame(header: bytes, offset: int) -> Frame | None:
    """Read a frame's header; None if it is none."""
    if len(header) < 6:
        return None
    length_code, rate_code = header[2] >> 4, header[2] & 15
    channel_code, bits_code = header[3] >> 4, header[3] >> 1 & 7
    if not length_code or rate_code == 15 or channel_code > 10 or header[3] & 1:
        return None
    number, i = _number(header)
    length, i = _field(header, i, {6: 1, 7: 2}.get(length_code, 0))
    rate, i = _field(header, i, {12: 1, 13: 2, 14: 2}.get(rate_code, 0))
    if number < 0 or i >= len(header) or _crc8(header[:i]) != header[i]:
        return None
    return Frame(
        offset=offset,
        number=number,
        variable=bool(header[1] & 1),
        length=length + 1 if length_code in (6, 7) else BLOCK_LENGTHS[length_code],
        sample_rate=rate * {12: 1000, 14: 10}.get(rate_code, 1)
        if rate_code >= 12
        else SAMPLE_RATES[rate_code],
        channels=channel_code + 1 if channel_code < 8 else 2,
        bits=SAMPLE_BITS[bits_code],
    )


def _number(header: bytes) -> tuple[int, int]:
    """The frame's (or sample's) number, coded as UTF-8 codes characters, and where it ends."""
    ones = 8 - (header[4] ^ 0xFF).bit_length()
    if ones == 0:
        return header[4], 5
    tail = header[5 : 4 + ones]
    if ones == 1 or ones == 8 or len(tail) < ones - 1 or any(byte >> 6 != 2 for byte in tail):
        return -1, 5
    number = header[4] & (0x7F >> ones)
    for byte in tail:
        number = number << 6 | byte & 0x3F
    return number, 4 + ones


def _field(header: bytes, i: int, size: int) -> tuple[int, int]:
    return int.from_bytes(header[i : i + size]), i + size


def _crc8(message: bytes) -> int:
    """CRC with polynomial x^8 + x^2 + x + 1 over a frame's header."""
    table, value = _crc8_table(), 0
    for byte in message:
        value = table[value ^ byte]
    return value


@cache
def _crc8_table() -> bytes:
    def shifted(value: int) -> int:
        for _ in range(8):
            value = value << 1 ^ (0x107 if value & 0x80 else 0)
        return value

    return bytes(shifted(byte) for byte in range(256))


def crc16(message: bytes) -> int:
    """CRC with polynomial x^16 + x^15 + x^2 + 1, 0 at the start; 0 over a sound frame.

    A message is a polynomial, its CRC the remainder. Neighbours of equal length combine as
    first * x^length + second, for all pairs at once: log2(n) steps instead of n. Zeros in front
    change nothing, so any length can be made a power of two.

    >>> hex(crc16(b"123456789" + bytes(2))), crc16(b"123456789" + bytes.fromhex("fee8"))
    ('0xfee8', 0)
    """
    n_words = 1 << max((len(message) + 1) // 2 - 1, 0).bit_length()
    words = np.frombuffer(message.rjust(2 * n_words, b"\0"), dtype=">u2").astype(np.uint16)
    level = 0
    while len(words) > 1:
        words = _shift_table(level)[words[0::2]] ^ words[1::2]
        level += 1
    return int(words[0])


@cache
def _shift_table(level: int) -> NDArray[np.uint16]:
    """Remainders of v * x^(16 * 2^level) for all v: [65536]."""
    if level > 0:
        half = _shift_table(level - 1)
        return half[half]
    values: NDArray[np.uint32] = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        values = (values << np.uint32(1)) ^ (values >> np.uint32(15)) * np.uint32(0x18005)
    return values.astype(np.uint16)
