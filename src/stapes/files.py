"""Files replaced whole or not at all: temporary file in the same folder, fsync, rename."""

import errno
import fcntl
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from stapes.errors import StapesError

TEMPORARY_PREFIX = ".stapes-"
"""Begins the names of temporary files, so that orphans of a killed run can be told."""

MOST_BYTES = 200
"""Of another name in the name of a file; systems allow 255."""


@contextmanager
def replacing(path: str | Path, *, n_bytes: int = 0) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of ``path`` when the block ends without an error.

    Args:
        path: the file to write; the old one stays until the new one is safe on the disk. What a
            link points to is replaced, not the link.
        n_bytes: how long the file will be, where that is known, for the message of a full disk.

    Raises:
        StapesError: the folder cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    try:
        with _temporary(target.parent) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            finally:
                n_bytes = max(n_bytes, file.tell())
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, target)
            sync_folder(target.parent)
    except OSError as error:
        raise StapesError(write_trouble(Path(path), error, n_bytes=n_bytes)) from error


@contextmanager
def _temporary(folder: Path) -> Iterator[IO[bytes]]:
    """A file that is gone in the end unless it was renamed, locked as long as it is in use."""
    with tempfile.NamedTemporaryFile(prefix=TEMPORARY_PREFIX, dir=folder, delete=False) as file:
        try:
            with suppress(OSError):  # not every network file system has locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file.file
        finally:
            with suppress(FileNotFoundError):
                os.unlink(file.name)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replace a file by ``content``, atomically."""
    with replacing(path, n_bytes=len(content)) as file:
        file.write(content)


def write_text(path: str | Path, content: str) -> None:
    """Replace a file by ``content`` in UTF-8, atomically; names that are not UTF-8 survive."""
    write_bytes(path, content.encode("utf-8", "surrogateescape"))


def write_json(path: str | Path, content: Any) -> None:
    """Replace a file by ``content`` as indented JSON, atomically; nan becomes null."""
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def file_name(name: str) -> str:
    """A file name without folders that every system allows, from any other name.

    >>> file_name("bird/../../wren")
    'bird_.._.._wren'
    """
    safe = "".join(c if c.isalnum() or c in "-_. " else "_" for c in name)
    return safe.encode("utf-8", "replace")[-MOST_BYTES:].decode("utf-8", "ignore").strip(". ")


def remove_orphans(folder: Path) -> None:
    """Delete the temporary files that killed runs left in ``folder``, not those in use."""
    for orphan in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError), orphan.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            orphan.unlink()


def _finite(content: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_trouble(path: Path, error: OSError, *, n_bytes: int = 0) -> str:
    """Why a file or folder could not be written, and what to do, in one line."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free
        needed = f"at least {n_bytes:,} bytes needed, " if n_bytes else ""
        return f"{path}: no space left ({needed}{free:,} bytes free); free some and run again"
    return f"{path}: cannot be written ({error.strerror}); choose another place"
