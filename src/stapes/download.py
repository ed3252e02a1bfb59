"""Public sets of recordings, brought from their homes into a folder that ``load_dataset`` reads."""

import csv
import difflib
import http.client
import io
import json
import os
import re
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from stapes import __version__
from stapes.clips import printable
from stapes.errors import StapesError, UsageError
from stapes.files import TEMPORARY_PREFIX, sync_folder, write_trouble
from stapes.progress import Progress, silent

KAGGLE_SET = "mmoreaux/audio-cats-and-dogs"
ESC10_ARCHIVE = "https://github.com/karolpiczak/ESC-10/archive/refs/heads/master.zip"
ESC10_NAME = re.compile(r"\d{3} - ([A-Za-z ]+)/((\d)-(\d+)-[A-Z]\.ogg)")
"""Category, and of each clip fold, Freesound id and take, as the set's README describes them."""

MARKER_NAME = "stapes-fetch.json"
"""Written into every fetched folder; only folders with it are ever overwritten."""

TIMEOUT_SECONDS = 30.0
BLOCK_BYTES = 1 << 18
LARGEST_BYTES = 4 << 30
"""More than any of the sets unpacks to: an archive that claims more is not theirs."""


def fetch(
    name: str,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    archive: str | Path | None = None,
    progress: Progress = silent,
) -> Path:
    """Bring a public set into a folder, whole or not at all.

    Args:
        name: "cats-dogs" (Kaggle's mmoreaux/audio-cats-and-dogs) or "esc10" (K. J. Piczak's
            ESC-10, CC BY, doi.org/10.1145/2733373.2806390).
        out: the folder to make; called like the set if None.
        overwrite: replace a folder that an earlier fetch made.
        archive: a zip file, or its http address, to take instead of the public one.
        progress: told the bytes done and to do while downloading.

    Returns:
        The folder.

    Raises:
        UsageError: unknown name, or a folder that must not be overwritten.
        StapesError: no network, a damaged or unsafe archive, no space.
    """
    if name not in SETS:
        near = difflib.get_close_matches(name, SETS, 1, cutoff=0.0)[0]
        raise UsageError(f"unknown set {printable(name)!r}: did you mean {near}?")
    out = Path(out or name)
    _check_out(out, overwrite=overwrite)
    with _replacing_folder(out) as folder:
        if archive is None and name == "cats-dogs":
            _download_kaggle(folder)
        else:
            with _opened(archive or ESC10_ARCHIVE, folder=folder, progress=progress) as file:
                SETS[name](file, folder)
        marker = {"set": name, "archive": str(archive or "public"), "stapes": __version__}
        (folder / MARKER_NAME).write_text(json.dumps(marker) + "\n", encoding="utf-8")
    return out


def _check_out(out: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise UsageError(f"{printable(str(out))}: exists; choose another folder or --overwrite")
    if not (out / MARKER_NAME).is_file():
        raise UsageError(f"{printable(str(out))}: was not made by fetch; choose another folder")


@contextmanager
def _replacing_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``out`` when the block ends without an error."""
    out = Path(os.path.abspath(out))
    temporary = out.parent / f"{TEMPORARY_PREFIX}fetch-{out.name}"
    old = out.parent / f"{TEMPORARY_PREFIX}old-{out.name}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed run
        shutil.rmtree(old, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        _sync(temporary)
        if os.path.lexists(out):
            os.replace(out, old)
        os.replace(temporary, out)
        sync_folder(out.parent)
    except OSError as error:
        raise StapesError(printable(write_trouble(out, error))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make sure that every file below is on the disk before the folder gets its name."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


def _download_kaggle(folder: Path) -> None:
    try:
        import kagglehub
    except ImportError as error:
        raise StapesError(
            "fetching cats-dogs needs kagglehub: pip install 'stapes[fetch]'"
        ) from error
    try:
        path = kagglehub.dataset_download(KAGGLE_SET)
    except Exception as error:  # whatever its many dependencies raise
        raise StapesError(_network_trouble(f"kaggle.com/datasets/{KAGGLE_SET}", error)) from error
    shutil.copytree(path, folder, dirs_exist_ok=True)
    _unpack_inner(folder)


@contextmanager
def _opened(archive: str | Path, *, folder: Path, progress: Progress) -> Iterator[zipfile.ZipFile]:
    """The archive, downloaded beside the folder first if it is an address."""
    path = Path(archive)
    downloaded = folder / "archive.zip"
    try:
        if re.match("https?://", str(archive)):
            _download(str(archive), downloaded, progress=progress)
            path = downloaded
        with zipfile.ZipFile(path) as file:
            _check_archive(file, folder=folder, where=printable(str(archive)))
            yield file
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise StapesError(
            f"{printable(str(archive))}: not a whole zip archive ({error}): download it again"
        ) from error
    except OSError as error:
        if error.filename != str(path):
            raise
        raise StapesError(
            f"{printable(str(archive))}: cannot be read ({error.strerror}): give a zip archive"
        ) from error
    finally:
        downloaded.unlink(missing_ok=True)


def _download(address: str, path: Path, *, progress: Progress) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": f"stapes/{__version__}"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            n_bytes = int(response.headers.get("Content-Length") or 0)
            with path.open("wb") as file:
                n_done = _copy(response, file, n_bytes=n_bytes, progress=progress)
    except (urllib.error.URLError, http.client.HTTPException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.filename == str(path):
            raise
        raise StapesError(_network_trouble(address, error)) from error
    if n_bytes and n_done != n_bytes:
        raise StapesError(f"{address}: {n_done:,} of {n_bytes:,} bytes came: try again")


def _copy(
    response: http.client.HTTPResponse, file: IO[bytes], *, n_bytes: int, progress: Progress
) -> int:
    """Copy block by block; give the number of bytes copied."""
    n_done = 0
    while block := response.read(BLOCK_BYTES):
        file.write(block)
        n_done += len(block)
        if n_done > LARGEST_BYTES:
            raise ValueError(f"over {LARGEST_BYTES:,} bytes")
        progress("downloading", n_done, n_bytes, "")
    return n_done


def _network_trouble(address: str, error: Exception) -> str:
    reason = printable(str(error).strip().partition("\n")[0])
    return (
        f"{address}: cannot be downloaded ({type(error).__name__}: {reason}): check the network, "
        f"or fetch the archive elsewhere and give its path with --archive"
    )


def _check_archive(file: zipfile.ZipFile, *, folder: Path, where: str) -> None:
    """Raise StapesError if a member would leave the folder, or all together fill the disk."""
    for info in file.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        link = stat.S_ISLNK(info.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or ":" in info.filename or link:
            raise StapesError(f"{where}: unsafe member {printable(info.filename)}: do not use it")
    n_bytes = sum(info.file_size for info in file.infolist())
    free = shutil.disk_usage(folder).free
    if n_bytes > min(free, LARGEST_BYTES):
        raise StapesError(
            f"{where}: unpacks to {n_bytes:,} bytes, {free:,} are free and "
            f"{LARGEST_BYTES:,} allowed"
        )


def _unpack_kaggle(file: zipfile.ZipFile, folder: Path) -> None:
    file.extractall(folder)
    _unpack_inner(folder)


def _unpack_inner(folder: Path) -> None:
    """Unpack the set's ``cats_dogs.zip`` where it came unopened inside the other archive."""
    inner = folder / "cats_dogs.zip"
    if inner.is_file() and not (folder / "cats_dogs").is_dir():
        with _opened(inner, folder=folder, progress=silent) as file:
            file.extractall(folder)
        inner.unlink()


def _unpack_esc10(file: zipfile.ZipFile, folder: Path) -> None:
    """Class folders with a table of sources and folds, and the README with the licences."""
    rows = []
    for info in file.infolist():
        category, _, name = info.filename.rpartition("/")
        match = ESC10_NAME.fullmatch(f"{category.rpartition('/')[2]}/{name}")
        if match is not None:
            label = match[1].lower().replace(" ", "_")
            rows.append((f"{label}/{match[2]}", label, f"{match[3]}-{match[4]}", match[3]))
            _write(folder / label / match[2], file.read(info))
        elif name.startswith(("README", "LICENSE")):
            _write(folder / name, file.read(info))
    if not rows:
        raise StapesError("the archive holds no clips of ESC-10: give that of its repository")
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("file_name", "label", "source", "fold"))
    writer.writerows(sorted(rows))
    _write(folder / "metadata.csv", table.getvalue().encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


SETS: dict[str, Callable[[zipfile.ZipFile, Path], None]] = {
    "cats-dogs": _unpack_kaggle,
    "esc10": _unpack_esc10,
}
