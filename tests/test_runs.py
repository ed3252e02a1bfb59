"""One run a folder: locked, never overwritten unasked, never inside what is read."""

import errno
import os
from pathlib import Path

import pytest

from stapes import runs
from stapes.errors import StapesError, UsageError
from stapes.files import TEMPORARY_PREFIX
from stapes.runs import (
    BUDGET_FILE,
    FILES,
    LABELS_FOLDER,
    LOCK_FILE,
    STATE_FILE,
    begin_anew,
    clear_lists,
    refuse_inside,
    refuse_labels_of,
    refuse_model_of,
    run_folder,
)


def test_a_new_folder_is_made_and_left_without_a_lock(tmp_path):
    with run_folder(tmp_path / "a" / "b", resume=False, overwrite=False) as folder:
        assert (folder / LOCK_FILE).read_text() == str(os.getpid())
        (folder / "mine").touch()
    assert [path.name for path in folder.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", FILES)
def test_an_earlier_run_is_refused_resumed_or_replaced(tmp_path, name):
    (tmp_path / name).write_bytes(b"old")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    with (
        pytest.raises(UsageError, match=rf"{name}.*--resume.*--overwrite"),
        run_folder(tmp_path, resume=False, overwrite=False),
    ):
        pytest.fail("the run went on")
    with run_folder(tmp_path, resume=True, overwrite=False):
        assert (tmp_path / name).read_bytes() == b"old"
    with run_folder(tmp_path, resume=False, overwrite=True) as folder:
        assert (tmp_path / name).read_bytes() == b"old"  # until the new run has read what it needs
        begin_anew(folder)
        assert (tmp_path / name).exists() == (name not in (STATE_FILE, BUDGET_FILE))
    assert (tmp_path / "notes.txt").read_bytes() == b"mine"


def test_lists_of_an_earlier_run_go_and_what_the_user_wrote_stays(tmp_path):
    place = tmp_path / LABELS_FOLDER
    place.mkdir()
    for name in ("001 cat_1.wav.txt", "1000 dog.txt", "mine.txt"):
        (place / name).touch()
    clear_lists(tmp_path)
    assert [path.name for path in place.iterdir()] == ["mine.txt"]


def test_labels_that_lie_in_the_run_that_is_replaced_are_not_lost(tmp_path):
    with pytest.raises(UsageError, match="is to be overwritten: move it"):
        refuse_labels_of(tmp_path / "run", tmp_path / "run" / "suspicious.csv")
    refuse_labels_of(tmp_path / "run", tmp_path / "corrected.csv")
    refuse_labels_of(tmp_path / "run", None)


def test_resume_and_overwrite_contradict_each_other(tmp_path):
    (tmp_path / FILES[0]).write_bytes(b"old")
    with (
        pytest.raises(UsageError, match="contradict"),
        run_folder(tmp_path, resume=True, overwrite=True),
    ):
        pytest.fail("the run went on")
    assert (tmp_path / FILES[0]).read_bytes() == b"old"


def test_a_second_run_is_told_who_is_at_work_and_harms_nothing(tmp_path):
    with run_folder(tmp_path, resume=False, overwrite=False):
        (tmp_path / FILES[0]).write_bytes(b"of the first")
        with (
            pytest.raises(StapesError, match=rf"process {os.getpid()} is training there"),
            run_folder(tmp_path, resume=False, overwrite=True),
        ):
            pytest.fail("two runs in one folder")
        assert (tmp_path / FILES[0]).read_bytes() == b"of the first"
    with run_folder(tmp_path, resume=True, overwrite=False):
        pass


def test_the_lock_of_a_killed_run_holds_nobody_up(tmp_path):
    (tmp_path / LOCK_FILE).write_text("99999999")
    with run_folder(tmp_path, resume=False, overwrite=False) as folder:
        assert (folder / LOCK_FILE).read_text() == str(os.getpid())


def test_a_file_system_without_locks_is_told_by_name(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(runs.fcntl, "flock", refuse)
    with (
        pytest.raises(StapesError, match=rf"{tmp_path}: its file system has no locks"),
        run_folder(tmp_path),
    ):
        pytest.fail("the run went on")


def test_orphaned_temporary_files_are_cleaned(tmp_path):
    (tmp_path / f"{TEMPORARY_PREFIX}abc").write_bytes(b"half")
    with run_folder(tmp_path, resume=False, overwrite=False):
        assert not list(tmp_path.glob(f"{TEMPORARY_PREFIX}*"))


@pytest.mark.parametrize("place", ["/proc/nowhere/run", "/dev/null/run", "{file}", "{long}"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path, place):
    (tmp_path / "file").write_bytes(b"")
    out = place.format(file=tmp_path / "file", long=tmp_path / ("x" * 300))
    with (
        pytest.raises(StapesError, match="cannot be written"),
        run_folder(out, resume=False, overwrite=False),
    ):
        pytest.fail("the run went on")


@pytest.mark.parametrize(
    ("out", "data", "refused"),
    [
        ("data", "data", True),
        ("data/run", "data", True),
        ("data/a/../b/run", "data", True),
        ("link/run", "data", True),
        ("data/table.csv", "data/table.csv", True),
        ("data/run", "data/table.csv", False),
        ("data2", "data", False),
        ("run", "data", False),
        (".", "data", False),
    ],
)
def test_output_is_never_what_is_read_nor_inside_it(tmp_path, monkeypatch, out, data, refused):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/table.csv").write_text("")
    Path("link").symlink_to("data")
    if refused:
        with pytest.raises(UsageError, match="which is read"):
            refuse_inside(out, data)
    else:
        refuse_inside(out, data)


@pytest.mark.parametrize(
    ("out", "model", "refused"),
    [
        ("w/run", "w/run", True),
        ("w/run", "w/run/model.safetensors", True),
        ("w/linked", "w/linked/model.safetensors", True),
        ("w/run", "w/linked", True),
        ("w", "w/run", False),
        ("w/run/more", "w/run", False),
        (".", "cats-dogs", False),
    ],
)
def test_a_run_never_takes_the_place_of_the_model_it_measures(
    tmp_path, monkeypatch, out, model, refused
):
    monkeypatch.chdir(tmp_path)
    for folder in ("w/run", "w/linked", "cats-dogs"):
        Path(folder).mkdir(parents=True)
    Path("w/run/model.safetensors").write_bytes(b"")
    Path("w/linked/model.safetensors").symlink_to("../run/model.safetensors")
    if refused:
        with pytest.raises(UsageError, match="is where the model"):
            refuse_model_of(out, model)
    else:
        refuse_model_of(out, model)
