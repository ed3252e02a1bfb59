import csv
import io
import json
import os
import socket
import stat
import sys
import threading
import types
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recordings import write_wav
from stapes import download
from stapes.dataset import load_dataset
from stapes.download import KAGGLE_SET, MARKER_NAME, fetch
from stapes.errors import StapesError, UsageError

CLIPS = {
    "001 - Dog bark": ["1-100-A", "2-200-A", "2-200-B"],
    "003 - Sea waves": ["1-300-A", "5-400-C"],
}


def zipped(members: dict[str, bytes], **options) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", **options) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return content.getvalue()


@pytest.fixture
def esc10_zip(tmp_path) -> Path:
    """An archive laid out as that of the public repository."""
    wav = write_wav(tmp_path / "made" / "x.wav").read_bytes()
    members = {
        f"ESC-10-master/{folder}/{name}.ogg": wav + name.encode()
        for folder, names in CLIPS.items()
        for name in names
    }
    path = tmp_path / "made" / "master.zip"
    readme = {"ESC-10-master/README.md": b"licences", "ESC-10-master/ESC-10.png": b"image"}
    path.write_bytes(zipped(members | readme))
    return path


class Server:
    """Answers every request with what the test sets."""

    def __init__(self) -> None:
        self.content, self.status, self.claimed = b"", 200, None
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(server.status)
                length = len(server.content) if server.claimed is None else server.claimed
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(server.content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/master.zip"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def left_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_esc10_from_a_server(tmp_path, server, esc10_zip):
    server.content = esc10_zip.read_bytes()
    told: list[tuple[int, int]] = []

    def progress(_task, done, total, _note):
        told.append((done, total))

    out = fetch("esc10", out=tmp_path / "new" / "esc10", archive=server.address, progress=progress)
    with (out / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "file_name": "dog_bark/1-100-A.ogg",
        "label": "dog_bark",
        "source": "1-100",
        "fold": "1",
    }
    assert [row["source"] for row in rows] == ["1-100", "2-200", "2-200", "1-300", "5-400"]
    assert left_in(out) == ["README.md", "dog_bark", "metadata.csv", "sea_waves", MARKER_NAME]
    assert left_in(out.parent) == ["esc10"]
    assert told[-1] == (len(server.content), len(server.content))
    dataset = load_dataset(out)
    assert (dataset.classes, dataset.n_sources) == (("dog_bark", "sea_waves"), 4)
    assert [clip.fold for clip in dataset.clips] == [1, 2, 2, 1, 5]


def test_esc10_from_a_file_is_the_same(tmp_path, server, esc10_zip):
    server.content = esc10_zip.read_bytes()
    one = fetch("esc10", out=tmp_path / "one", archive=server.address)
    two = fetch("esc10", out=tmp_path / "two", archive=esc10_zip)
    files = [p.relative_to(one) for p in one.rglob("*") if p.is_file() and p.name != MARKER_NAME]
    assert len(files) == 7
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)


def test_cats_dogs_from_a_file(tmp_path):
    members = {
        f"cats_dogs/{name}.wav": write_wav(tmp_path / "made" / f"{name}.wav").read_bytes()
        for name in ("cat_1", "cat_2", "dog_barking_0")
    }
    archive = tmp_path / "archive.zip"
    archive.write_bytes(zipped(members | {"utils.py": b""}))
    out = fetch("cats-dogs", out=tmp_path / "data", archive=archive)
    assert [clip.label for clip in load_dataset(out).clips] == ["cat", "cat", "dog"]


def kagglehub_with(answer) -> types.ModuleType:
    module = types.ModuleType("kagglehub")
    module.dataset_download = answer
    return module


def test_cats_dogs_through_kagglehub(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    wav = write_wav(cache / "spare.wav").read_bytes()
    (cache / "spare.wav").unlink()
    inner = zipped({"cats_dogs/cat_1.wav": wav, "cats_dogs/dog_barking_1.wav": wav + b"\0\0"})
    (cache / "cats_dogs.zip").write_bytes(inner)
    asked = []
    module = kagglehub_with(lambda handle: asked.append(handle) or str(cache))
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    out = fetch("cats-dogs", out=tmp_path / "data")
    assert asked == [KAGGLE_SET] == ["mmoreaux/audio-cats-and-dogs"]
    assert left_in(out) == ["cats_dogs", MARKER_NAME]
    assert [clip.label for clip in load_dataset(out).clips] == ["cat", "dog"]
    assert left_in(cache) == ["cats_dogs.zip"]  # the cache is not ours to change


def test_without_kagglehub(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(StapesError, match=r"pip install 'stapes\[fetch\]'"):
        fetch("cats-dogs", out=tmp_path / "data")
    assert left_in(tmp_path) == []


def test_kagglehub_offline(tmp_path, monkeypatch):
    def refuse(handle: str) -> str:
        raise ConnectionError("Max retries exceeded\nwith a second line")

    monkeypatch.setitem(sys.modules, "kagglehub", kagglehub_with(refuse))
    with pytest.raises(StapesError, match="ConnectionError: Max retries exceeded") as caught:
        fetch("cats-dogs", out=tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert left_in(tmp_path) == []


def test_offline(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/x.zip"
        with pytest.raises(
            StapesError, match=r"cannot be downloaded .*check the network"
        ) as caught:
            fetch("esc10", out=tmp_path / "data", archive=address)
    assert "\n" not in str(caught.value)
    assert left_in(tmp_path) == []


def test_a_server_that_stops_answering(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip"
        with pytest.raises(StapesError, match="timed out"):
            fetch("esc10", out=tmp_path / "data", archive=address)


@pytest.mark.parametrize(
    ("content", "status", "claimed", "match"),
    [
        (b"gone", 404, None, "404"),
        (b"PK\x03\x04 half", 200, 1000, "9 of 1,000 bytes came"),
        (b"<html>Sign in</html>", 200, None, "not a whole zip archive"),
        (zipped({"x/README.md": b""}), 200, None, "no clips of ESC-10"),
    ],
    ids=["missing", "cut short", "a web page", "another archive"],
)
def test_bad_answers(tmp_path, server, content, status, claimed, match):
    server.content, server.status, server.claimed = content, status, claimed
    with pytest.raises(StapesError, match=match) as caught:
        fetch("esc10", out=tmp_path / "data", archive=server.address)
    assert "\n" not in str(caught.value)
    assert left_in(tmp_path) == []


def linking_archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        info = zipfile.ZipInfo("cats_dogs/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc")
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        zipped({"../outside.wav": b"x"}),
        zipped({"cats_dogs/../../outside.wav": b"x"}),
        zipped({"/outside.wav": b"x"}),
        zipped({"..\\outside.wav": b"x"}),
        zipped({"C:outside.wav": b"x"}),
        linking_archive(),
    ],
    ids=["parent", "parent inside", "absolute", "backslash", "drive", "link"],
)
def test_unsafe_members(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    (tmp_path / "sub").mkdir()
    with pytest.raises(StapesError, match="unsafe member"):
        fetch("cats-dogs", out=tmp_path / "sub" / "data", archive=tmp_path / "a.zip")
    assert left_in(tmp_path) == ["a.zip", "sub"] and left_in(tmp_path / "sub") == []


def test_a_bomb_is_refused_by_its_claim(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LARGEST_BYTES", 100_000)
    bomb = zipped({"cats_dogs/cat_1.wav": bytes(1_000_000)}, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 2_000
    (tmp_path / "a.zip").write_bytes(bomb)
    with pytest.raises(StapesError, match="unpacks to 1,000,000 bytes"):
        fetch("cats-dogs", out=tmp_path / "data", archive=tmp_path / "a.zip")


def test_a_damaged_member(tmp_path, esc10_zip):
    content = bytearray(esc10_zip.read_bytes())
    content[2_000] ^= 1
    esc10_zip.write_bytes(content)
    with pytest.raises(StapesError, match="Bad CRC-32"):
        fetch("esc10", out=tmp_path / "data", archive=esc10_zip)
    assert left_in(tmp_path) == ["made"]


def test_an_archive_that_is_not_there(tmp_path):
    with pytest.raises(StapesError, match=r"No such file or directory\): give a zip archive"):
        fetch("esc10", out=tmp_path / "data", archive=tmp_path / "none.zip")


def test_the_folder_is_called_like_the_set_unless_it_is_named(tmp_path, esc10_zip, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fetch("esc10", archive=esc10_zip) == Path("esc10")
    assert (tmp_path / "esc10" / "metadata.csv").is_file()


def test_a_folder_is_no_archive(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(StapesError, match=r"/folder: cannot be read .*: give a zip archive"):
        fetch("esc10", out=tmp_path / "data", archive=tmp_path / "folder")


def test_an_existing_folder_is_left_alone(tmp_path, esc10_zip):
    out = tmp_path / "data"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="exists"):
        fetch("esc10", out=out, archive=esc10_zip)
    with pytest.raises(UsageError, match="was not made by fetch"):
        fetch("esc10", out=out, archive=esc10_zip, overwrite=True)
    assert (out / "thesis.txt").read_text() == "years of work"


def test_overwrite_replaces_what_fetch_made(tmp_path, esc10_zip):
    out = fetch("esc10", out=tmp_path / "data", archive=esc10_zip)
    (out / "metadata.csv").write_text("spoilt")
    with pytest.raises(StapesError, match="not a whole zip"):
        (tmp_path / "bad.zip").write_bytes(b"PK")
        fetch("esc10", out=out, archive=tmp_path / "bad.zip", overwrite=True)
    assert (
        out / "metadata.csv"
    ).read_text() == "spoilt"  # the old one stays until the new is whole
    fetch("esc10", out=out, archive=esc10_zip, overwrite=True)
    assert len(load_dataset(out).clips) == 5
    assert left_in(tmp_path) == ["bad.zip", "data", "made"]
    assert json.loads((out / MARKER_NAME).read_text())["set"] == "esc10"


def test_an_empty_folder_is_filled(tmp_path, esc10_zip):
    (tmp_path / "data").mkdir()
    fetch("esc10", out=tmp_path / "data", archive=esc10_zip)
    assert len(load_dataset(tmp_path / "data").clips) == 5


def test_what_a_killed_run_left_is_cleaned(tmp_path, esc10_zip):
    orphan = tmp_path / ".stapes-fetch-data"
    orphan.mkdir()
    (orphan / "archive.zip").write_bytes(b"half")
    fetch("esc10", out=tmp_path / "data", archive=esc10_zip)
    assert left_in(tmp_path) == ["data", "made"]


def test_a_full_disk(tmp_path, esc10_zip, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StapesError, match=r"no space left \([\d,]+ bytes free\)"):
        fetch("esc10", out=tmp_path / "data", archive=esc10_zip)
    assert left_in(tmp_path) == ["made"]


def test_a_place_that_cannot_be_written(tmp_path, esc10_zip):
    (tmp_path / "file").write_text("")
    with pytest.raises(StapesError, match="cannot be written"):
        fetch("esc10", out=tmp_path / "file" / "data", archive=esc10_zip)


def test_unknown_set(tmp_path):
    with pytest.raises(UsageError, match="'cat-dogs': did you mean cats-dogs"):
        fetch("cat-dogs", out=tmp_path / "data")
