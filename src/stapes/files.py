"""Files replaced whole or not at all: temporary file in the same folder, fsync, rename."""

import errno
import json
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


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of ``path`` when the block ends without an error.

    Args:
        path: the file to write; the old one stays until the new one is safe on the disk.

    Raises:
        StapesError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
    except OSError as error:
        raise StapesError(_explain(path, error)) from error


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replace a file by ``content``, atomically."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: str | Path, content: str) -> None:
    """Replace a file by ``content`` in UTF-8, atomically; names that are not UTF-8 survive."""
    write_bytes(path, content.encode("utf-8", "surrogateescape"))


def write_json(path: str | Path, content: Any) -> None:
    """Replace a file by ``content`` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def remove_orphans(folder: Path) -> None:
    """Delete the temporary files that a killed run left in ``folder``."""
    for orphan in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError):
            orphan.unlink()


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free
        return f"{path}: no space left ({free:,} bytes free); free some and run again"
    return f"{path}: cannot be written ({error.strerror}); choose another place"
