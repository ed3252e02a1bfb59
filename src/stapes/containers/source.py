"""Bytes of a file or from memory at any offset, and the view of them that a decoder is given."""

import io
import os
import stat
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from stapes.errors import AudioError

BUFFER_BYTES = 1 << 18

Piece = bytes | range
"""Of a view: bytes as they are, or the offsets of bytes of the source."""


class Source:
    """Read-only bytes at any offset; of a file only what is asked for is in memory.

    Args:
        content: a path, or the bytes themselves.

    Raises:
        AudioError: not a regular file, or one that cannot be opened. Nothing here blocks.
    """

    def __init__(self, content: str | Path | bytes) -> None:
        """Open the file, or wrap the bytes."""
        self._file: BinaryIO
        if isinstance(content, bytes):
            self.name, self.suffix, self.size = "audio in memory", "", len(content)
            self._file = io.BytesIO(content)
        else:
            self.name, self.suffix = _one_line(str(content)), Path(content).suffix.lower()
            self._file = self._open(content)
            self.size = os.fstat(self._file.fileno()).st_size

    def _open(self, path: str | Path) -> BinaryIO:
        try:
            # A FIFO that becomes a file between the two calls must not block the open either.
            kind = kind_of(os.stat(path).st_mode)
            if kind:
                raise AudioError(f"{self.name}: {kind}, not a file: give a file of audio")
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            return os.fdopen(os.open(path, flags), "rb", buffering=BUFFER_BYTES)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise AudioError(f"{self.name}: cannot be opened ({reason}): check the path") from error

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer at the end, none outside.

        Raises:
            AudioError: the disk does not answer.
        """
        if not 0 <= offset < self.size:
            return b""
        try:
            self._file.seek(offset)
            return self._file.read(length)
        except OSError as error:
            reason = f"cannot be read at byte {offset:,} ({error.strerror}): check the disk"
            raise AudioError(f"{self.name}: {reason}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class View(io.RawIOBase):
    """Pieces of a source, one behind the other, as a file that a decoder can read.

    Attributes:
        error: what reading the source raised. A decoder cannot pass an exception on, so it
            is given the end of the file instead, and whoever runs it looks here.
    """

    def __init__(self, source: Source, pieces: Sequence[Piece]) -> None:
        """Lay the pieces out; nothing is read yet."""
        self.error: Exception | None = None
        self._source = source
        self._pieces = [piece for piece in pieces if len(piece)]
        self._ends = list(accumulate(map(len, self._pieces)))
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Current position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; before the beginning is the beginning."""
        size = self._ends[-1] if self._ends else 0
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer; how many bytes were there."""
        filled = 0
        while filled < len(buffer) and (part := self._read(len(buffer) - filled)):
            buffer[filled : filled + len(part)] = part
            filled += len(part)
        return filled

    def _read(self, length: int) -> bytes:
        """Bytes at the position from one piece; none at the end."""
        index = bisect_right(self._ends, self._position)
        if index == len(self._pieces) or self.error is not None:
            return b""
        piece = self._pieces[index]
        offset = self._position - (self._ends[index] - len(piece))
        part = self._bytes(piece, offset, min(length, len(piece) - offset))
        self._position += len(part)
        return part

    def _bytes(self, piece: Piece, offset: int, length: int) -> bytes:
        if isinstance(piece, bytes):
            return piece[offset : offset + length]
        try:
            return self._source.read_at(piece.start + offset, length)
        except Exception as error:
            self.error = error
            return b""


def kind_of(mode: int) -> str:
    """What a path of this mode is; empty for a regular file."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return "" if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), "a special file")


def _one_line(name: str) -> str:
    """A file's name without line breaks and other control characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
