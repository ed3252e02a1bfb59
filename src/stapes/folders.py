"""Recordings below a folder, found without looping and without opening what could block."""

import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from stapes.clips import Skip
from stapes.containers.source import kind_of

AUDIO_SUFFIXES = frozenset(
    (
        *(".aac", ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mp3", ".oga"),
        *(".ogg", ".opus", ".rf64", ".snd", ".w64", ".wav", ".wave", ".webm", ".wma"),
    )
)
"""Names that claim to be recordings; some of them no decoder here reads, and these are reported."""

PARTIAL_SUFFIXES = frozenset(
    (".crdownload", ".download", ".opdownload", ".part", ".partial", ".tmp")
)
"""Names that browsers and download tools give to unfinished files."""

JUNK_NAMES = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"))
"""Files and folders that operating systems leave behind, in lower case."""


class Kind(Enum):
    """What to do with a directory entry."""

    RECORDING = 1
    FOLDER = 2
    SKIPPED = 3
    IGNORED = 4


@dataclass(frozen=True, slots=True)
class Found:
    """What lies below a folder; all names relative to it, '/' between, in byte order.

    Attributes:
        names: the recordings.
        folders: the top-level folders, empty ones too.
        skipped: what looks like a recording or hides some, and cannot be used.
        ignored: number of other files, by kind.
    """

    names: tuple[str, ...]
    folders: tuple[str, ...]
    skipped: tuple[Skip, ...]
    ignored: Mapping[str, int]

    @property
    def beside(self) -> list[str]:
        """The recordings that lie in the folder itself."""
        return [name for name in self.names if "/" not in name]


NOTHING = Found((), (), (), {})
"""What lies below a folder that was not looked at."""


def find_recordings(root: Path) -> Found:
    """Find everything that is a recording by its name, in all subfolders.

    Nothing is opened. Links are followed, but every folder is read once only, and under its
    own name rather than a link's; so neither loops nor webs of links can make this long.
    """
    names: list[str] = []
    folders: list[str] = []
    skipped: list[Skip] = []
    ignored: Counter[str] = Counter()
    real, linked, seen = [""], list[str](), set[tuple[int, int]]()
    while real or linked:
        prefix = real.pop() if real else linked.pop(0)
        entries = _open_folder(root, prefix, seen=seen)
        if isinstance(entries, Skip):
            skipped.append(entries)
            continue
        if prefix and "/" not in prefix[:-1]:
            folders.append(prefix[:-1])
        for entry in entries:
            name = prefix + entry.name
            kind, reason = classify(entry)
            if kind is Kind.RECORDING:
                names.append(name)
            elif kind is Kind.FOLDER:
                (linked if entry.is_symlink() else real).append(name + "/")
            elif kind is Kind.SKIPPED:
                skipped.append(Skip(name, reason))
            else:
                ignored[reason] += 1
    return Found(
        names=tuple(sorted(names, key=os.fsencode)),
        folders=tuple(sorted(folders, key=os.fsencode)),
        skipped=tuple(sorted(skipped, key=lambda skip: os.fsencode(skip.name))),
        ignored=dict(sorted(ignored.items())),
    )


def _open_folder(
    root: Path, prefix: str, *, seen: set[tuple[int, int]]
) -> list[os.DirEntry[str]] | Skip:
    """Entries of a folder, sorted; or why there are none to be had."""
    try:
        status = os.stat(root / prefix)
        if (status.st_dev, status.st_ino) in seen:
            return Skip(prefix[:-1], "a link to a folder that is read already")
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(root / prefix) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        return Skip(prefix[:-1] or ".", f"cannot be read: {error.strerror}")


def classify(entry: os.DirEntry[str]) -> tuple[Kind, str]:
    """What a directory entry is, and the reason or kind if it is left out."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if entry.name.startswith("._"):
        return Kind.IGNORED, "._ files of macOS"
    if entry.name.startswith(".") or entry.name.lower() in JUNK_NAMES:
        known = entry.name in {".DS_Store", ".ipynb_checkpoints"} or entry.name[0] != "."
        return Kind.IGNORED, entry.name if known else "hidden files"
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        what = "a dangling or looping link" if entry.is_symlink() else "cannot be read"
        return Kind.SKIPPED, f"{what}: {error.strerror}"
    if suffix in PARTIAL_SUFFIXES:
        return Kind.SKIPPED, f"a partial download ({suffix}): finish it or delete it"
    if stat.S_ISDIR(mode):
        named_as_file = suffix in AUDIO_SUFFIXES
        return (Kind.SKIPPED, not_a_file(mode) or "") if named_as_file else (Kind.FOLDER, "")
    if reason := not_a_file(mode):
        return Kind.SKIPPED, reason
    if suffix in AUDIO_SUFFIXES:
        return Kind.RECORDING, ""
    return Kind.IGNORED, f"{suffix} files" if suffix else "files without a suffix"


def not_a_file(mode: int) -> str | None:
    """Why an entry of this mode is no recording: a folder or special file; None for a file."""
    kind = kind_of(mode)
    return f"{kind}, not a recording" if kind else None
