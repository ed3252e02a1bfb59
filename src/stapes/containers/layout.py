"""What was found out about one file: the audio in it, what is wrong, what the decoder gets."""

from dataclasses import dataclass
from typing import NamedTuple

from stapes.containers.source import Piece

FLAGS = {
    "damaged": "part of the audio is missing or broken; the readable part is used",
    "header-repaired": "sizes in the header are wrong; the true ones were taken from the file",
    "length-unverifiable": "the file does not say how long it is, so a cut could not be noticed",
    "wrong-extension": "the content is of another format than the name says; the content counts",
}
"""Every word that may stand among a recording's flags, and what it means."""

MOST_NOTES = 3
"""Damaged places that are told of one by one."""


class Finding(NamedTuple):
    """One thing to tell about a file: a word of :data:`FLAGS` and the sentence behind it."""

    flag: str
    note: str


@dataclass(frozen=True, slots=True)
class Layout:
    """What a container holds, worked out without the decoder.

    Attributes:
        kind: name of the format, for people.
        pieces: what the decoder is to see: a sound header and the sound part of the audio.
        findings: what is wrong with the file.
        n_frames: frames that the decoder must deliver; None if only it can tell.
        tolerance: frames by which a sound decoder may stay below ``n_frames``.
        md5: digest of the samples as integers, or empty; see ``bits``.
        bits: of the integers that ``md5`` is over.
        nul_level: the sample that NUL bytes decode to.
        exact_seek: the decoder finds any frame exactly and fast.
        noisy: the decoder writes to stderr of every broken frame.
    """

    kind: str
    pieces: tuple[Piece, ...]
    findings: tuple[Finding, ...] = ()
    n_frames: int | None = None
    tolerance: int = 0
    md5: bytes = b""
    bits: int = 16
    nul_level: float = 0.0
    exact_seek: bool = False
    noisy: bool = False


def append(ranges: list[range], piece: range) -> None:
    """Add a range behind others; joined with the last, where they touch.

    >>> ranges = [range(0, 4)]
    >>> append(ranges, range(4, 9))
    >>> append(ranges, range(12, 14))
    >>> ranges
    [range(0, 9), range(12, 14)]
    """
    if ranges and ranges[-1].stop == piece.start:
        ranges[-1] = range(ranges[-1].start, piece.stop)
    else:
        ranges.append(piece)


def damages(notes: list[str]) -> list[Finding]:
    """Damaged places as findings: the first few in full, the others counted."""
    more = len(notes) - MOST_NOTES
    told = notes[:MOST_NOTES] + ([f"and {more:,} more such places"] if more > 0 else [])
    return [Finding("damaged", note) for note in told]
