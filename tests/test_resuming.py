"""Exactness: the same bytes from another process, and after being killed or asked to end."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stapes import training
from stapes.errors import UsageError
from stapes.holdout import train

EXACT = {"epochs": 4, "steps_per_epoch": 4, "batch_size": 4, "validation_share": 0.3}


def sha256(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


DRIVER = """
import hashlib, os, random, signal, sys, threading
from stapes import cli, experiment, files, holdout, progress, reporting, training

reporting.render = lambda *_, **__: "page"
data, folder, settings = sys.argv[1], sys.argv[2], eval(sys.argv[3])

def in_child(task):
    "How a child process ended: its exit code, or minus the signal that ended it."
    pid = os.fork()
    if pid == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        try:
            task()
        except SystemExit as end:
            os._exit(end.code or 0)
        except BaseException:
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def digest(name):
    with open(f"{folder}/{name}/model.safetensors", "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def later(seconds):
    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()

def run(moment):
    "Train, and strike at a step, before a file takes its place, or after some time."
    kind, value = moment
    calls = []
    def count(*_):
        calls.append(1)
        if len(calls) == value:
            kill()
    if kind == "file":
        replace = os.replace
        files.os.replace = lambda *names: (count(), replace(*names))
    if kind == "time":
        later(value)
    told = count if kind == "step" else progress.silent
    holdout.train(data, out=f"{folder}/killed", resume=True, progress=told, **settings)

def command(*strike):
    "The same by the command line; the n-th report of a step sends a signal."
    number, step = strike or (0, None)
    def reporter(*_):
        seen = []
        def report(_step):
            seen.append(1)
            if len(seen) == step:
                os.kill(os.getpid(), number)
        return report
    experiment.step_reporter = reporter
    sys.argv = ["stapes", "train", data, "--out", f"{folder}/asked", "--resume"]
    sys.argv += ["--epochs", "1", "--batch-size", "2"]
    cli.main()

rng = random.Random(int(sys.argv[4]))
moments = [("step", rng.randint(20, 28)), ("file", 1), ("step", 20), ("file", rng.randint(2, 4))]
moments += [("time", rng.uniform(0.1, 0.6)) for _ in range(2)]
ends = [in_child(lambda m=m: run(m)) for m in moments] + [in_child(lambda: run(("step", 0)))]
print("killed", ends, digest("killed"))
ends = [in_child(lambda: command(signal.SIGTERM, 30)), in_child(lambda: command(signal.SIGINT, 50))]
ends.append(in_child(command))
print("asked", ends, digest("asked"))
"""


@pytest.fixture(scope="module")
def endings(tones_folder, tmp_path_factory) -> dict[str, tuple[list[int], str]]:
    """What another process did: exit codes of its children, and the hash of the model."""
    folder = tmp_path_factory.mktemp("endings")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tones_folder), str(folder), repr(EXACT), "0"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONHASHSEED": "77"},
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return {name: (json.loads(rest[: rest.index("]") + 1]), rest[-64:]) for name, rest in rows}


def test_killed_anywhere_and_resumed_gives_the_bytes_of_a_run_left_alone(
    endings, tones_folder, tmp_path, no_report
):
    train(tones_folder, out=tmp_path / "whole", **EXACT)
    codes, digest = endings["killed"]
    assert codes.count(-9) >= 3
    assert set(codes) <= {-9, 0}
    assert codes[-1] == 0
    assert digest == sha256(tmp_path / "whole")


def test_asked_to_end_and_resumed_gives_the_bytes_of_a_run_left_alone(
    endings, tones_folder, tmp_path, no_report
):
    codes, digest = endings["asked"]
    assert codes == [143, 130, 0]
    train(tones_folder, out=tmp_path / "whole", epochs=1, batch_size=2)
    assert digest == sha256(tmp_path / "whole")


def test_another_seed_gives_another_model(tones_folder, tmp_path, no_report):
    settings = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2}
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        train(tones_folder, out=tmp_path / name, seed=seed, **settings)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b") != sha256(tmp_path / "c")


def test_resume_with_other_settings_is_refused_by_name(tones_folder, tmp_path, no_report):
    settings = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2}
    train(tones_folder, out=tmp_path, **settings)
    before = sha256(tmp_path)
    with pytest.raises(UsageError, match="batch_size was 2, is 4"):
        train(tones_folder, out=tmp_path, resume=True, **settings | {"batch_size": 4})
    with pytest.raises(UsageError, match="already holds"):
        train(tones_folder, out=tmp_path, **settings)
    assert sha256(tmp_path) == before


def test_seconds_of_an_interrupted_run_count(tones_folder, tmp_path, no_report, monkeypatch):
    settings = {"epochs": 2, "steps_per_epoch": 2, "batch_size": 2}
    earlier = train(tones_folder, out=tmp_path, **settings)
    rows = (tmp_path / "history.jsonl").read_text()
    spent = training.fit

    def an_hour_ago(*arguments, **options):
        state = spent(*arguments, **options)
        assert state.earlier_seconds == state.seconds > 0  # all of it was done before
        state.earlier_seconds = 3600.0
        return state

    monkeypatch.setattr(training, "fit", an_hour_ago)
    again = train(tones_folder, out=tmp_path, resume=True, **settings)
    assert 3600 < again["seconds"] < 3600 + 60 + earlier["seconds"]
    assert (tmp_path / "history.jsonl").read_text() == rows
