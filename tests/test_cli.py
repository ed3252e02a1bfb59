"""The command line: what it prints, writes and ends with."""

import csv
import errno
import inspect
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import stapes as library
from stapes import (
    __version__,
    assessment,
    checkpoint,
    cli,
    crossvalidation,
    demonstration,
    explanation,
    files,
    holdout,
    options,
    reporting,
)
from stapes.checkpoint import Model
from stapes.config import ModelConfig
from stapes.inference import load
from stapes.terminal import print_metrics, say
from tones import write_tone, write_tones

KEYS = ["path", "label", "probability", "probabilities", "duration_seconds", "flags", "notes"]
ODD_NAMES = [b"caf\xe9.wav", b"two\nlines.wav", '\N{CAT FACE}, "quoted".wav'.encode(), b"a;b.wav"]


@pytest.fixture
def folder(tmp_path):
    """Three recordings, one of them shorter than a segment."""
    write_tone(tmp_path / "in" / "a.wav", "low", seed=1)
    write_tone(tmp_path / "in" / "b.wav", "high", seed=2, seconds=2.0)
    write_tone(tmp_path / "in" / "c.wav", "high", seed=3, seconds=0.5)
    return tmp_path / "in"


def in_process(*args, program: str = "from stapes.cli import main; main()", **options):
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
    given |= {"leaks", "budget"}
    assert set(asked[0]) == given
    assert set(asked[1]) == given | {"epochs", "patience"}
    assert (asked[1]["epochs"], asked[1]["patience"]) == (7, 0)


# Predictions.


def test_json_lines_have_exactly_the_keys_that_others_rely_on(stapes, run_folder, folder):
    ended = stapes("predict", run_folder, folder, "--format", "jsonl", "--segments")
    assert (ended.code, ended.err) == (0, "")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["path"] for row in rows] == [str(folder / n) for n in ("a.wav", "b.wav", "c.wav")]
    for row in rows:
        assert list(row) == [*KEYS, "segments"]
        assert list(row["probabilities"]) == ["high", "low"]
        assert row["probability"] == row["probabilities"][row["label"]]
        for segment in row["segments"]:
            assert list(segment) == ["start_seconds", "probabilities"]
            assert sum(segment["probabilities"].values()) == pytest.approx(1)
    assert [row["label"] for row in rows] == ["low", "high", "high"]
    assert [row["flags"] for row in rows] == [[], [], ["short"]]
    assert [len(row["segments"]) for row in rows] == [2, 4, 1]
    plain = stapes("predict", run_folder, folder, "--format", "jsonl")
    assert [json.loads(line) for line in plain.out.splitlines()] == [
        {key: row[key] for key in KEYS} for row in rows
    ]


def test_csv_says_the_same(stapes, run_folder, folder):
    answers = [load(run_folder).predict(path) for path in sorted(folder.iterdir())]
    ended = stapes("predict", run_folder, folder, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(ended.out.decode())))
    for row, answer in zip(rows, answers, strict=True):
        assert row["path"] == answer.path
        assert row["label"] == answer.label
        assert row["flags"] == " ".join(answer.flags)
        for key, value in [("probability", answer.probability), *answer.probabilities.items()]:
            assert float(row[key]) == pytest.approx(value, abs=5.1e-5)
    ended = stapes("predict", run_folder, folder, "--format", "csv", "--segments", "--hop", "dense")
    rows = list(csv.DictReader(io.StringIO(ended.out.decode())))
    assert [float(row["start_seconds"]) for row in rows if row["path"].endswith("a.wav")] == [
        round(i * 0.064, 3) for i in range(5)
    ]


def test_the_table_is_for_people(stapes, run_folder, folder):
    lines = stapes("predict", run_folder, folder).out.decode().splitlines()
    assert lines[0].split() == ["label", "probability", "seconds", "recording"]
    assert [line.split()[0] for line in lines[1:4]] == ["low", "high", "high"]
    assert lines[3].endswith("c.wav  (short)")
    assert lines[4].strip() == "shorter than a segment of 1 s; padded"
    lines = stapes("predict", run_folder, folder, "--segments").out.decode().splitlines()
    assert len(lines) == 1 + 3 + 1 + 2 + 4 + 1


def test_what_is_skipped_is_listed_and_the_exit_code_says_so(stapes, run_folder, folder):
    (folder / "bad.wav").write_bytes(b"no audio")
    (folder / "empty.wav").write_bytes(b"")
    for given in ([], ["--format", "jsonl"], ["--format", "csv", "--out", folder / "../x.csv"]):
        ended = stapes("predict", run_folder, folder, *given)
        assert ended.code == 3
        told = sorted(ended.err.splitlines())
        assert len(told) == 2
        assert told[0].startswith(f"skipped {folder / 'bad.wav'}: ")
        assert told[1].startswith(f"skipped {folder / 'empty.wav'}: ")
    rows = list(csv.DictReader((folder / "../x.csv").open()))
    assert [row["label"] for row in rows] == ["low", "high", "high"]


def test_names_that_are_odd_come_back_as_they_are(stapes, run_folder, tmp_path):
    for i, name in enumerate(ODD_NAMES):
        write_tone(tmp_path / os.fsdecode(name), "low", seed=i)
    wanted = {bytes(tmp_path) + b"/" + name for name in ODD_NAMES}
    rows = stapes("predict", run_folder, tmp_path, "--format", "jsonl").out.splitlines()
    assert {os.fsencode(json.loads(row)["path"]) for row in rows} == wanted
    text = stapes("predict", run_folder, tmp_path, "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(text.decode("utf-8", "surrogateescape"), newline="")))
    assert {os.fsencode(row["path"]) for row in rows} == wanted
    table = stapes("predict", run_folder, tmp_path).out.decode()  # is UTF-8
    assert len(table.splitlines()) == 1 + len(ODD_NAMES)
    assert "two\\nlines.wav" in table


def test_odd_names_of_skipped_files_take_one_line_each(stapes, run_folder, folder):
    for name in (*ODD_NAMES, b"\x1b[31mred.wav"):
        (folder / os.fsdecode(name)).write_bytes(b"")
    ended = stapes("predict", run_folder, folder)
    assert ended.code == 3
    assert len(ended.err.splitlines()) == len(ODD_NAMES) + 1
    assert "\x1b" not in ended.err


def random_model(classes: tuple[str, ...]) -> Model:
    config = ModelConfig(classes, n_layers=2, n_filters=2, segment_length=1000)
    shapes = checkpoint.tensor_shapes(config)
    return Model(config, {k: np.full(shape, 0.1, np.float32) for k, shape in shapes.items()})


def test_a_spreadsheet_runs_nothing(stapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save("model", random_model(("=1+1", "@cmd")))
    write_tone(tmp_path / "=cmd|calc.wav", "low", seed=0, seconds=0.1)
    write_tone(tmp_path / "-1.wav", "low", seed=1, seconds=0.1)
    for given in ([], ["--segments"]):
        ended = stapes(
            "predict", "model", *given, "--format", "csv", "--", "=cmd|calc.wav", "-1.wav"
        )
        rows = list(csv.reader(io.StringIO(ended.out.decode())))
        assert len(rows) > 2
        assert rows[1][0] == "'=cmd|calc.wav"
        assert not [cell for row in rows for cell in row if cell.startswith(("=", "@", "-", "+"))]


# Files written.


def test_out_holds_what_would_be_printed(stapes, run_folder, folder, tmp_path):
    out = tmp_path / "answers"
    for output_format in ("table", "csv", "jsonl"):
        printed = stapes("predict", run_folder, folder, "--format", output_format)
        args = ["predict", run_folder, folder, "--format", output_format, "--out", out]
        written = stapes(*args, "--overwrite")
        assert (written.code, written.out, written.err) == (0, b"", "")
        assert out.read_bytes() == printed.out
    assert stapes(*args).code == 2


def test_the_mode_of_what_is_written_follows_the_umask(stapes, run_folder, folder, tmp_path):
    before = os.umask(0o077)
    try:
        stapes("predict", run_folder, folder, "--out", tmp_path / "answers")
    finally:
        os.umask(before)
    assert (tmp_path / "answers").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_leaves_the_old_answers(stapes, run_folder, folder, tmp_path, monkeypatch):
    out = tmp_path / "answers"
    out.write_bytes(b"old")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    ended = stapes("predict", run_folder, folder, "--out", out, "--overwrite")
    assert ended.code == 4
    assert "no space left (at least" in ended.error
    assert out.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "answers"}


def test_orphans_beside_the_output_are_cleaned(stapes, run_folder, folder, tmp_path):
    (tmp_path / f"{files.TEMPORARY_PREFIX}orphan").write_bytes(b"half")
    stapes("predict", run_folder, folder, "--out", tmp_path / "answers")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "answers"}


@pytest.mark.parametrize("command", ["evaluate", "crossval", "reproduce", "predict"])
def test_output_that_cannot_be_written_is_told_before_the_work(
    stapes, run_folder, tones_folder, tmp_path, monkeypatch, command
):
    def work(*_, **__):
        pytest.fail("the work began")

    monkeypatch.setattr(options.os, "access", lambda _path, mode: mode != os.W_OK)
    monkeypatch.setattr(assessment, "evaluate", work)
    monkeypatch.setattr(crossvalidation, "crossval", work)
    monkeypatch.setattr("stapes.notebook.reproduce", work)
    monkeypatch.setattr("stapes.archive.predict", work)
    model = [run_folder] if command in ("evaluate", "predict") else []
    option = "--out" if command == "predict" else "--json"
    ended = stapes(command, *model, tones_folder, option, tmp_path / "x")
    assert ended.code == 4
    assert "cannot be written" in ended.error


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


def test_what_is_said_is_one_line_of_printable_text(capsys):
    say("two\nlines\x1b[31m \udce9 \N{CAT FACE}")
    assert capsys.readouterr().err == "two\\nlines\\x1b[31m \\udce9 \N{CAT FACE}\n"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (MemoryError(), 4, "error: out of memory"),
        (OSError(errno.EIO, "Input/output error", "x.wav"), 4, "error: x.wav: Input/output error"),
        (ModuleNotFoundError("no", name="torch"), 4, "error: .*pip install 'stapes[train]'"),
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
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "stapes.training", raising=False)
    ended = stapes("train", tones_folder, "--out", tmp_path / "run")
    assert ended.code == 4
    assert ended.error == "error: this needs torch: pip install 'stapes[train]'"


# Explain and demo: what they are made of has tests of its own.


@pytest.fixture
def explained(monkeypatch):
    """What would be drawn: folder -> name of the recording."""
    drawn = {}

    def write(folder, explanation, *, name, model):
        drawn[folder] = name
        (folder / "index.html").write_text("page")
        return folder / "index.html"

    monkeypatch.setattr("stapes.pages.clip.write_explanation", write)
    monkeypatch.setattr("stapes.pages.clip.PAGE_FILE", "index.html")
    return drawn


def test_explain_writes_once(stapes, run_folder, folder, tmp_path, explained):
    args = ["explain", run_folder, folder / "a.wav", "--out", tmp_path / "figures"]
    ended = stapes(*args)
    assert (ended.code, ended.out) == (0, b"")
    assert "figures/index.html" in ended.err
    assert explained == {tmp_path / "figures": "a.wav"}
    assert "--overwrite" in stapes(*args).error
    assert stapes(*args, "--overwrite").code == 0


def test_explain_refuses_what_makes_no_figure(stapes, run_folder, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(explanation, "MAX_SECONDS", 1.0)
    ended = stapes("explain", run_folder, folder / "b.wav", "--out", tmp_path / "x")
    assert ended.code == 2
    assert "lasts 2 s: cut out the piece of interest, at most 1 s" in ended.error
    assert not (tmp_path / "x").exists()
    (folder / "bad.wav").write_bytes(b"no audio")
    assert stapes("explain", run_folder, folder / "bad.wav", "--out", tmp_path / "x").code == 4


def test_demo_does_all_of_it(stapes, tones_folder, tmp_path, monkeypatch, explained):
    monkeypatch.setattr(reporting, "render", lambda *_, **__: "page")
    train = demonstration.train
    quick = {"epochs": 1, "steps_per_epoch": 3, "batch_size": 4}
    monkeypatch.setattr(
        demonstration, "train", lambda *args, **settings: train(*args, **settings | quick)
    )
    ended = stapes("demo", tones_folder, "--out", tmp_path / "demo")
    assert ended.code == 0
    lines = ended.err.splitlines()
    assert lines[0] == f"report: {tmp_path / 'demo' / 'run' / 'report.html'}"
    assert {line.split(":")[0] for line in lines[1:]} == {"one high", "one low"}
    assert set(explained) == {tmp_path / "demo" / f"explain-{c}" for c in ("high", "low")}
    assert "recall of low" in ended.out.decode()
    assert ended.out.decode().count(".wav") >= 4
    assert stapes("demo", tones_folder, "--out", tmp_path / "demo").code == 2


# In a process of its own.


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
