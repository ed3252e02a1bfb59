"""What a file of sound is, and whether all of it is there; independent of the decoder.

The content decides, not the name. Each format has a walker in :mod:`stapes.containers` that
follows the container's own structure: sizes, counts, checksums, marks of the end.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from stapes.containers import aiff, flac, mpeg, ogg, riff
from stapes.containers.layout import Finding, Layout
from stapes.containers.source import Source
from stapes.errors import AudioError

SUFFIXES = {
    "WAV": (".wav", ".wave", ".bwf", ".rf64", ".w64"),
    "AIFF": (".aif", ".aiff", ".aifc"),
    "FLAC": (".flac", ".fla"),
    "Ogg": (".ogg", ".oga", ".opus", ".spx"),
    "MP3": (".mp3", ".mp2", ".mp1", ".mpga", ".mpeg"),
    "AU": (".au", ".snd"),
    "CAF": (".caf",),
}
"""Endings of names that go with each format."""

FOREIGN = {
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"0&\xb2u\x8ef\xcf\x11": "Windows Media",
    b"\xff\xf1": "AAC",
    b"\xff\xf9": "AAC",
    b"#!AMR": "AMR",
    b"wvpk": "WavPack",
    b"MAC ": "Monkey's Audio",
    b"ADIF": "AAC",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"MThd": "MIDI",
}
"""First bytes of what cannot be read."""


class Kind(NamedTuple):
    """First bytes of a format, as a pattern, and its walker."""

    pattern: bytes
    walker: Callable[[Source, int], Layout]


def inspect(source: Source) -> Layout:
    """Find the audio in a file, and what is wrong with it.

    Args:
        source: the file or bytes.

    Raises:
        AudioError: no audio in it that can be vouched for.
    """
    head = source.read_at(0, 4096)
    if not head:
        raise AudioError(f"{source.name}: an empty file: record or copy it again")
    start = _behind_tags(source)
    magic = source.read_at(start, 16)
    for kind in KINDS:
        if re.match(kind.pattern, magic, re.DOTALL):
            layout = kind.walker(source, start)
            break
    else:
        _refuse_foreign(source, head)
        layout = _mpeg_or_nothing(source, start)
    return _with_name_checked(source, layout)


def _behind_tags(source: Source) -> int:
    """Where the content begins: ID3v2 tags may stand in front of anything."""
    start = 0
    while (tag := source.read_at(start, 10)).startswith(b"ID3") and len(tag) == 10:
        size = sum(
            (byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True)
        )
        start += 10 + size + (10 if tag[5] & 0x10 else 0)
    return start if start < source.size else 0


def _unwalked(kind: str) -> Callable[[Source, int], Layout]:
    """A format that libsndfile reads and nothing here checks."""

    def inspect(source: Source, start: int) -> Layout:
        note = f"{kind} files are not checked for completeness"
        finding = Finding("length-unverifiable", note)
        return Layout(kind=kind, pieces=(range(start, source.size),), findings=(finding,))

    return inspect


KINDS = (
    Kind(rb"(RIFF|RIFX|RF64|BW64)....WAVE", lambda source, _: riff.inspect(source)),
    Kind(rb"riff\x2e\x91\xcf\x11", lambda source, _: riff.inspect(source)),
    Kind(rb"FORM....AIF[FC]", lambda source, _: aiff.inspect(source)),
    Kind(rb"fLaC", flac.inspect),
    Kind(rb"OggS", ogg.inspect),
    Kind(rb"\.snd|dns\.", _unwalked("AU")),
    Kind(rb"caff", _unwalked("CAF")),
)
"""Formats that are told by their first bytes; MP3 has none."""


def _mpeg_or_nothing(source: Source, start: int) -> Layout:
    where = range(start, source.size)
    if mpeg.find(source, where) < 0:
        what = "not audio" if any(source.read_at(0, 4096)) else "not audio, NUL bytes only"
        raise AudioError(f"{source.name}: {what}: give WAV, FLAC, Ogg, Opus, MP3 or AIFF")
    return mpeg.inspect(source, where)


def _refuse_foreign(source: Source, head: bytes) -> None:
    """Name what the file is, if it is something well known."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in text:
        trouble = "not audio, looks like HTML: the download failed, fetch it again"
    elif text.startswith(b"version https://git-lfs"):
        trouble = "not audio, a Git LFS pointer: run git lfs pull"
    elif re.fullmatch(rb"[\t\r\n\x20-\x7e\x80-\xff]*", head) and _is_text(head):
        trouble = "not audio, looks like text: give WAV, FLAC, Ogg, Opus, MP3 or AIFF"
    elif name := next((FOREIGN[key] for key in FOREIGN if head.startswith(key)), ""):
        trouble = f"{name}, which cannot be read: convert it to WAV or FLAC"
    elif head[4:8] == b"ftyp":
        trouble = "MP4 (AAC), which cannot be read: convert it to WAV or FLAC"
    else:
        return
    raise AudioError(f"{source.name}: {trouble}")


def _is_text(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a character cut in two
    return True


def _with_name_checked(source: Source, layout: Layout) -> Layout:
    """The same layout, with a word about a name that says something else."""
    says = next((kind for kind, suffixes in SUFFIXES.items() if source.suffix in suffixes), "")
    if says in ("", layout.kind.split()[0]):
        return layout
    finding = Finding("wrong-extension", f"named {source.suffix} but is {layout.kind}")
    return replace(layout, findings=(*layout.findings, finding))
