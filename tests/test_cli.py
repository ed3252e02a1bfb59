"""The command line: what it prints, writes and ends with."""

import errno
import inspect
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

import stapes as library
from stapes import (
    __version__,
    assessment,
    cli,
    holdout,
    native,
    reporting,
)
from stapes.terminal import print_metrics, progress_bar, say
from tones import write_tone, write_tones


def in_process(*args, program: str = "from stapes.__main__ import main; main()", **options):
    command = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.run(command, timeout=60, check=False, **options)


# Help and commands.


def test_help_names_every_command(stapes):
    for args in (["--help"], []):
        ended = stapes(*args)
        assert ended.code == (0 if args else 2)
        assert ended.err == ""
        for command in ("train", "crossval", "evaluate", "predict", "explain", "reproduce"):
            assert f"  {command} " in ended.out.decode()
    assert stapes("--version").out.decode() == f"stapes {__version__}\n"


def test_it_is_a_module_too_and_an_early_ctrl_c_is_silent():
    ended = subprocess.run(
        [sys.executable, "-m", "stapes", "--version"], capture_output=True, timeout=60, check=True
    )
    assert ended.stdout.decode() == f"stapes {__version__}\n"
    program = """
import sys

class Interrupted:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from stapes.__main__ import main
main()
"""
    ended = in_process(program=program, capture_output=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


def commands():
    return {c.name or c.callback.__name__: c.callback for c in cli.app.registered_commands}


@pytest.mark.parametrize("name", commands())
def test_a_command_is_a_public_function_with_the_same_defaults(stapes, name):
    assert name in library.__all__
    function = inspect.signature(getattr(library, name)).parameters
    command = inspect.signature(commands()[name]).parameters
    shared = {
        parameter: (command[parameter].default, function[parameter].default)
        for parameter in command.keys() & function.keys()
        if function[parameter].default is not inspect.Parameter.empty
    }
    assert all(str(ours) == str(theirs) for ours, theirs in shared.values() if ours is not None), (
        shared
    )
    ended = stapes(name, "--help")
    assert ended.code == 0
    summary = inspect.getdoc(commands()[name]).rstrip(".")
    assert summary in " ".join(ended.out.decode().split())
    assert ended.out.decode().startswith(f"Usage: stapes {name} ")


def test_settings_that_are_not_given_are_left_to_the_library(stapes, monkeypatch, run_folder):
    asked, metrics = [], json.loads((run_folder / "metrics.json").read_text())

    def train(data, **settings):
        asked.append(settings)
        return metrics

    monkeypatch.setattr(holdout, "train", train)
    assert stapes("train", "data", "--out", "run").code == 0
    assert stapes("train", "data", "--out", "run", "--epochs", 7, "--patience", 0).code == 0
    given = {"out", "preset", "resume", "overwrite", "progress", "seed"}
    given |= {"leaks", "budget", "threads"}
    assert set(asked[0]) == given
    assert set(asked[1]) == given | {"epochs", "patience"}
    assert (asked[1]["epochs"], asked[1]["patience"]) == (7, 0)


# Training and measuring.


def test_train_writes_a_run_and_says_where(stapes, tones_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "render", lambda *_, **__: "page")
    run = tmp_path / "run"
    ended = stapes("train", tones_folder, "--out", run, "--epochs", 1, "--batch-size", 2)
    assert ended.code == 0
    assert "Held-out sources: 3,041 parameters" in ended.out.decode()
    assert ended.err == f"model and report are in {run}\n"
    assert (run / "report.html").read_text() == "page"


def test_evaluate_prints_and_writes_the_same(stapes, run_folder, tmp_path):
    others = write_tones(tmp_path / "in", seed=5)
    ended = stapes("evaluate", run_folder, others, "--json", tmp_path / "x.json")
    assert (ended.code, ended.err) == (0, "")
    metrics = json.loads((tmp_path / "x.json").read_text())
    assert {"parameters", "segments", "clips", "seconds", "version"} <= set(metrics)
    assert f"{metrics['clips']['accuracy']:.3f}" in ended.out.decode()
    assert metrics["clips"]["n"] == 16


def test_evaluate_lists_what_it_skips(stapes, run_folder, tmp_path):
    for label in ("low", "high"):
        write_tone(tmp_path / "in" / label / "0.wav", label, seed=1)
    (tmp_path / "in" / "low" / "bad.wav").write_bytes(b"no audio")
    ended = stapes("evaluate", run_folder, tmp_path / "in", "--json", tmp_path / "x.json")
    assert ended.code == 3
    assert ended.err.splitlines()[-1].startswith("skipped low/bad.wav: ")
    assert json.loads((tmp_path / "x.json").read_text())["skipped"][0]["name"] == "low/bad.wav"


def test_one_class_alone_gives_json_that_any_reader_takes(stapes, run_folder, tmp_path):
    write_tone(tmp_path / "in" / "low" / "0.wav", "low", seed=1)
    assert stapes("evaluate", run_folder, tmp_path / "in", "--json", tmp_path / "x").code == 0
    assert json.loads((tmp_path / "x").read_text())["clips"]["roc_area"] is None
    assert "NaN" not in (tmp_path / "x").read_text()


def metrics_of(*labels: str) -> dict:
    part = {"accuracy": 0.5, "balanced_accuracy": 0.5, "roc_area": float("nan"), "n": 2}
    part |= {"recall": dict.fromkeys(labels, 0.25), "interval": [0, 1]}
    return {
        "parameters": 3041,
        "segments": part,
        "clips": part | {"majority_accuracy": 0.5},
    }


def test_brackets_colons_and_bytes_in_labels_are_only_that(capsys):
    labels = ["[red]", "[/x]", ":cat:", os.fsdecode(b"caf\xe9"), "two\nlines", "\N{CAT FACE}"]
    print_metrics(metrics_of(*labels), title="[bold]data[/bold]")
    out = capsys.readouterr().out
    for shown in ("[red]", "[/x]", ":cat:", "caf\\udce9", "two\\nlines", "\N{CAT FACE}"):
        assert f"recall of {shown} " in out
    assert "[bold]data[/bold]: 3,041" in out


def test_classes_of_too_few_sources_to_refuse_anything_are_named(capsys):
    accepting = {"sources_needed": 19, "thresholds": {"a": 0.0, "b": 0.9, "c": 0.0}}
    print_metrics(metrics_of(*"abc") | {"acceptance": accepting}, title="data")
    out = " ".join(capsys.readouterr().out.split())
    assert "Nothing called a or c is flagged as none of the classes: fewer than 19 sour" in out


def test_where_no_class_refuses_anything_no_list_of_classes_is_printed(capsys):
    accepting = {"sources_needed": 19, "thresholds": {"a": 0.0, "b": 0.0}}
    print_metrics(metrics_of(*"ab") | {"acceptance": accepting}, title="data")
    out = " ".join(capsys.readouterr().out.split())
    assert "Nothing is flagged as none of the classes: fewer than 19 sources" in out


def test_a_rule_is_called_worse_better_or_too_close(capsys):
    def row(name, **standing):
        return {"name": name, "clips": {"accuracy": 0.5}, "difference": standing}

    rows = [
        row("x", beaten=False, interval=[-0.4, -0.1], p_value=0.01),
        row("y", beaten=False, interval=[-0.1, 0.2], p_value=0.5),
        row("z", beaten=True, interval=[0.1, 0.2], p_value=0.01),
    ]
    print_metrics(metrics_of(*"ab") | {"baselines": rows}, title="data")
    out = " ".join(capsys.readouterr().out.split())
    assert "Worse than x: 0.500. Not clearly better than y: 0.500." in out
    assert "better than z" not in out


def test_a_terminal_without_unicode_shows_escapes(monkeypatch):
    bytes_out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_out, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["stapes", "evaluate", "m", "d"])
    monkeypatch.setattr(assessment, "evaluate", lambda *_, **__: metrics_of("\N{CAT FACE}", "dog"))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    sys.stdout.flush()
    assert ended.value.code == 0
    assert b"recall of \\U0001f431" in bytes_out.getvalue()


@pytest.mark.parametrize("width", [40, 100])
def test_a_terminal_of_any_width_shows_how_much_is_done(monkeypatch, capsys, width):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, says rich's documentation
    monkeypatch.setenv("COLUMNS", str(width))
    with progress_bar() as progress:
        progress("measuring", 274, 280, "a note")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.search(r"measuring .*274/280 .*left", shown)
    assert ("a note" in shown) == (width == 100)


def test_results_are_printed_in_a_terminal_that_says_it_has_no_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "0")
    print_metrics(metrics_of("cat", "dog"), title="a title")
    printed = capsys.readouterr().out
    assert "a title" in printed and "0.250" in printed


def test_what_is_said_is_one_line_of_printable_text(capsys):
    say("two\nlines\x1b[31m \udce9 \N{CAT FACE}")
    assert capsys.readouterr().err == "two\\nlines\\x1b[31m \\udce9 \N{CAT FACE}\n"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (MemoryError(), 4, "error: out of memory"),
        (OSError(errno.EIO, "Input/output error", "x.wav"), 4, "error: x.wav: Input/output error"),
        (OSError(errno.ENOSPC, "No space left on device"), 4, "error: output: No space left on de"),
        (ModuleNotFoundError("no", name="torch"), 4, "error: .*pip install 'stapes[torch]'"),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_trouble_from_outside_is_one_line_too(stapes, monkeypatch, error, code, told):
    def evaluate(*_, **__):
        raise error

    monkeypatch.setattr(assessment, "evaluate", evaluate)
    ended = stapes("evaluate", "model", "data")
    assert ended.code == code
    start, _, end = told.partition(".*")
    assert ended.err.startswith(start)
    assert end in ended.err
    assert len(ended.err.splitlines()) <= 1


def test_an_install_without_training_names_what_to_install(
    stapes, tones_folder, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    ended = stapes("train", tones_folder, "--out", tmp_path / "run")
    assert ended.code == 4
    assert ended.error == "error: this needs sklearn: pip install 'stapes[train]'"


@pytest.mark.skipif(not native.available(), reason="needs the kernels")
def test_training_needs_no_pytorch_but_where_it_is_asked_for(
    stapes, tones_folder, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch", None)
    run = tmp_path / "run"
    assert stapes("train", tones_folder, "--out", run, "--epochs", 1).code == 0
    assert stapes("report", run).code == 0
    ended = stapes("train", tones_folder, "--out", tmp_path / "other", "--device", "cuda")
    assert (ended.code, ended.error) == (4, "error: this needs torch: pip install 'stapes[torch]'")


def test_an_empty_argument_is_not_the_current_folder(stapes, tones_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for args in (("train", tones_folder, "--out", ""), ("predict", "cats-dogs", " ")):
        ended = stapes(*args)
        assert ended.code == 2
        assert ended.error.endswith(f"nothing is given after {args[-2]}: is a variable empty?")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_training_leaves_no_folder(stapes, folder, tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):  # of one class
        assert stapes("train", folder, "--out", tmp_path / name).code == 4
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "there").iterdir()) == []


def test_a_path_that_is_not_there_is_told_before_anything_is_answered(stapes, folder):
    for args in ((folder, folder / "nothing.wav"), (folder, "--hop", "9")):
        ended = stapes("predict", "cats-dogs", *args)
        assert (ended.code, ended.out) == (2, b"")


def test_a_closed_output_is_no_trouble(stapes, folder, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    ended = stapes("predict", "cats-dogs", folder)
    assert (ended.code, ended.err) == (0, "")


# In a process of its own.


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_no_recording_takes_the_place_of_a_closed_output(tmp_path, closed):
    data = tmp_path / "in"
    write_tone(data / "a.wav", "low", seed=1)
    sound, rate = soundfile.read(data / "a.wav")
    soundfile.write(data / "b.mp3", sound, rate)
    (data / "empty.wav").touch()
    program = "from stapes.cli import main; main()"
    command = f'"$1" -c "$2" predict cats-dogs "$3" --format csv --out "$4" {closed}'
    words = "sh", sys.executable, program, data, tmp_path / "answers.csv"
    done = subprocess.run(["sh", "-c", command, *words])
    assert done.returncode == 3  # one is empty
    rows = (tmp_path / "answers.csv").read_text().splitlines()
    assert [Path(row.split(",")[0]).name for row in rows[1:]] == ["a.wav", "b.mp3"]


def test_the_command_line_loads_nothing_heavy():
    heavy = {"torch", "matplotlib", "sklearn", "numpy", "soundfile", "rich", "jinja2"}
    program = f"import sys, stapes.cli; print(*sorted({heavy!r} & set(sys.modules)))"
    done = in_process(program=program, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_closed_pipe_is_quiet_and_costs_no_result(command, run_folder, tones_folder, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    options = ["--format", "jsonl"]
    if command == "evaluate":
        options = ["--json", tmp_path / "x.json", "--leaks", "allow"]
    try:
        done = in_process(
            command, run_folder, tones_folder, *options, stdout=writing, stderr=subprocess.PIPE
        )
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    if command == "evaluate":
        assert json.loads((tmp_path / "x.json").read_text())["clips"]["n"] == 16


def test_few_files_may_be_open_at_a_time(run_folder, tones_folder):
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64));"
        "from stapes.cli import main; main()"
    )
    paths = sorted(tones_folder.rglob("*.wav")) * 10
    done = in_process("predict", run_folder, *paths, program=program, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len([line for line in done.stdout.splitlines() if not line.startswith(b" ")]) == 161


def test_a_warning_is_one_line_that_names_no_line_of_code(stapes, run_folder, folder, monkeypatch):
    monkeypatch.setattr("stapes.native._native", None)  # as where no compiler was present
    ended = stapes("predict", run_folder, folder / "a.wav")
    assert ended.code == 0
    assert ended.err.startswith("warning: the native kernels are not installed")
    assert ended.err.count("\n") == 1
