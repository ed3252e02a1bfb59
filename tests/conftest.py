"""What several test files share: real recordings, where there are any, and a model of tones."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from tones import write_tone, write_tones

settings.register_profile("untimed", deadline=None)  # a busy machine is no error
settings.load_profile("untimed")

QUICK = {"epochs": 2, "steps_per_epoch": 40, "batch_size": 12, "averaging": 0.8}


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """What audits remember goes into a folder of the tests, not into the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder named by STAPES_DATA, which holds ``cats_dogs`` and ``esc10``."""
    folder = os.environ.get("STAPES_DATA")
    if not folder:
        pytest.skip("set STAPES_DATA to a folder that holds cats_dogs and esc10")
    if not Path(folder).is_dir():
        pytest.fail(f"STAPES_DATA is {folder}, which is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def tones_folder(tmp_path_factory) -> Path:
    """Folders ``high`` and ``low`` of eight tones each; to be read only."""
    return write_tones(tmp_path_factory.mktemp("data") / "tones")


@pytest.fixture(scope="session")
def run_folder(tones_folder, tmp_path_factory) -> Path:
    """A run of 80 steps on the tones, which tells them apart; to be read only."""
    from stapes.holdout import train

    folder = tmp_path_factory.mktemp("runs") / "tones"
    train(tones_folder, out=folder, **QUICK)
    return folder


@pytest.fixture
def no_report(monkeypatch):
    """Leaves out the page, which takes longer to draw than such a model to train."""
    monkeypatch.setattr("stapes.reporting.render", lambda *_, **__: "page")


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: bytes
    err: str

    @property
    def error(self) -> str:
        """The one line of an error, after what was said before it."""
        *_, last = self.err.splitlines()
        assert last.startswith("error: ")
        assert self.err.count("error: ") == 1
        return last


@pytest.fixture
def stapes(monkeypatch, capsysbinary):
    """Runs the command line in this process; whatever happens, there is no traceback."""
    from stapes import cli

    def run(*args: str | Path) -> Ended:
        monkeypatch.setattr("sys.argv", ["stapes", *map(str, args)])
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsysbinary.readouterr()
        assert b"Traceback" not in err
        return Ended(ended.value.code, out, err.decode())

    return run


@pytest.fixture
def folder(tmp_path):
    """Three recordings, one of them shorter than a segment."""
    write_tone(tmp_path / "in" / "a.wav", "low", seed=1)
    write_tone(tmp_path / "in" / "b.wav", "high", seed=2, seconds=2.0)
    write_tone(tmp_path / "in" / "c.wav", "high", seed=3, seconds=0.8)
    return tmp_path / "in"
