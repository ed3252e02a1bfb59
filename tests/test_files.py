"""Files are whole or absent, whatever happens while they are written."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stapes import files
from stapes.errors import StapesError
from stapes.files import remove_orphans, replacing, write_bytes, write_json, write_text


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == {"file"}


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new" * 100_000)
        assert path.read_bytes() == b"old"
    assert path.stat().st_size == 300_000


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt(), SystemExit(1)])
def test_whatever_ends_the_block_the_old_file_stays(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), replacing(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_says_how_much_is_needed(tmp_path, monkeypatch, number):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StapesError, match=r"12,345 bytes needed, [\d,]+ bytes free") as caught:
        write_bytes(path, bytes(12_345))
    assert str(path) in str(caught.value)
    with pytest.raises(StapesError, match="at least 7 bytes needed"), replacing(path) as file:
        file.write(bytes(7))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_really_full_device_says_so(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(StapesError, match="no space left"), replacing(path) as file:
        os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())
        file.write(bytes(70_000))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_a_missing_folder_and_a_folder_in_the_way_are_told_by_name(tmp_path):
    with pytest.raises(StapesError, match="missing/file: cannot be written"):
        write_bytes(tmp_path / "missing" / "file", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StapesError, match="folder: cannot be written"):
        write_bytes(tmp_path / "folder", b"")
    assert names(tmp_path) == {"folder"}


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "file", b"")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_file_and_folder_are_brought_to_the_disk_in_that_order(tmp_path, monkeypatch):
    synced, original = [], os.fsync

    def watch(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        original(descriptor)

    monkeypatch.setattr(files.os, "fsync", watch)
    write_bytes(tmp_path / "file", b"new")
    assert synced[0].startswith(str(tmp_path / files.TEMPORARY_PREFIX))
    assert synced[1:] == [str(tmp_path)]


def test_names_that_are_not_text_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9\n\xf0\x9f\x90\xb1")
    write_text(tmp_path / "text", name)
    assert (tmp_path / "text").read_bytes() == os.fsencode(name)
    write_json(tmp_path / "json", {"name": name})
    assert json.loads((tmp_path / "json").read_text())["name"] == name


def test_json_has_null_where_python_has_nan(tmp_path):
    write_json(tmp_path / "json", {"a": float("nan"), "b": [1.5, float("inf")], "c": (2, None)})

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    found = json.loads((tmp_path / "json").read_text(), parse_constant=refuse)
    assert found == {"a": None, "b": [1.5, None], "c": [2, None]}


KILLED = """
import os, signal, sys
from stapes.files import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_orphans_of_a_killed_run_are_removed_and_files_in_use_are_not(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_bytes() == b"old"
    assert len(names(tmp_path)) == 2
    with replacing(path) as file:
        remove_orphans(tmp_path)
        assert names(tmp_path) == {"file", Path(file.name).name}
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == {"file"}
