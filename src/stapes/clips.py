"""What a data set is made of: labelled clips, what was skipped, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled recording, or one labelled event inside it.

    Attributes:
        path: the file.
        name: path relative to the data set's root, '/' between folders: its identity in reports.
        label: name of its class.
        source: the recording it was cut from; clips of one source are never split.
        fold: fold given by the data, if any.
        part: "train" or "test", where the data itself gives a split.
        start_seconds: where the clip begins inside the file.
        end_seconds: where it ends, None for the end of the file.
    """

    path: Path
    name: str
    label: str
    source: str
    fold: int | None = None
    part: str | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None

    @property
    def is_event(self) -> bool:
        """Whether it is part of its file."""
        return self.start_seconds > 0 or self.end_seconds is not None

    @property
    def title(self) -> str:
        """What people read: the name, with the times of an event inside a longer recording."""
        if not self.is_event:
            return self.name
        end = "the end" if self.end_seconds is None else f"{self.end_seconds:g} s"
        return f"{self.name} ({self.start_seconds:g} s to {end})"


@dataclass(frozen=True, slots=True)
class Skip:
    """An input left out, by name, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled clips in byte order of their names, nothing decoded yet.

    Attributes:
        root: the folder that names are relative to.
        clips: the clips.
        skipped: inputs left out that somebody may miss.
        ignored: number of files left out that nobody will miss, by kind.
        warnings: what the user should know before trusting a result.
    """

    root: Path
    clips: tuple[Clip, ...]
    skipped: tuple[Skip, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in sorted order."""
        return tuple(sorted({clip.label for clip in self.clips}))

    @property
    def n_sources(self) -> int:
        """Number of distinct sources."""
        return len({clip.source for clip in self.clips})


def printable(text: str) -> str:
    r"""Text on one line for messages: control characters and undecodable bytes as escapes.

    >>> printable("a\nb.wav")
    'a\\nb.wav'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def listing(names: Sequence[str], *, n_shown: int = 5) -> str:
    """The first few names, for a message.

    >>> listing(["a", "b", "c"], n_shown=2)
    'a, b and 1 more'
    """
    shown = ", ".join(printable(name) for name in names[:n_shown])
    more = len(names) - n_shown
    return f"{shown} and {more} more" if more > 0 else shown
