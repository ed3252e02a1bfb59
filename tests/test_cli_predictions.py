"""Answers on the command line: as tables, CSV and JSON, printed and in files."""

import contextlib
import csv
import errno
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from rich.cells import cell_len

from stapes import assessment, checkpoint, crossvalidation, files, options
from stapes.checkpoint import Model
from stapes.config import ModelConfig
from stapes.inference import Prediction, load
from stapes.terminal import csv_lines, table_lines
from tones import write_tone

KEYS = ["path", "label", "probability", "probabilities", "duration_seconds", "flags", "notes"]
ODD_NAMES = [b"caf\xe9.wav", b"two\nlines.wav", '\N{CAT FACE}, "quoted".wav'.encode(), b"a;b.wav"]


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
    assert [len(row["segments"]) for row in rows] == [3, 5, 1]
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
        *(round(i * 0.064, 3) for i in range(5)),
        0.3,
    ]


def test_the_table_is_for_people(stapes, run_folder, folder):
    lines = stapes("predict", run_folder, folder).out.decode().splitlines()
    assert lines[0].split() == ["label", "probability", "seconds", "recording"]
    assert [line.split()[0] for line in lines[1:4]] == ["low", "high", "high"]
    assert lines[3].endswith("c.wav  (short)")
    assert lines[4].strip() == "shorter than a segment of 1 s; padded"
    lines = stapes("predict", run_folder, folder, "--segments").out.decode().splitlines()
    assert len(lines) == 1 + 3 + 1 + 3 + 5 + 1


def test_columns_stay_aligned_behind_letters_that_take_none_or_two():
    places = []
    wide = "\N{CJK UNIFIED IDEOGRAPH-86D9}\N{CJK UNIFIED IDEOGRAPH-9CF4}"
    for label in ("frog", wide, "cafe\N{COMBINING ACUTE ACCENT}"):
        answer = Prediction(
            *("x.wav", label, 1.0, {label: 1.0}, 1.0, (), ()), np.zeros(1), np.ones((1, 1))
        )
        lines = list(table_lines([answer], [label], segments=True))[1:]
        places.append([cell_len(line.split("1.0")[0]) for line in lines])
    assert places[0] == places[1] == places[2]


def test_one_bad_path_costs_no_good_one(stapes, run_folder, folder):
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    ended = stapes("predict", run_folder, folder / "gone.wav", folder / "a.wav")
    assert ended.code == 3
    assert "a.wav" in ended.out.decode()
    assert ended.err.splitlines()[-1].startswith(f"skipped {folder / 'gone.wav'}: ")


def test_a_class_called_like_a_column_gets_another_name():
    shares = {"path": 0.75, "label": 0.25}
    found = Prediction(
        "x.wav", "path", 0.75, shares, 1.0, (), (), np.zeros(1), np.float32([[0.75, 0.25]])
    )
    head, row = csv.reader(csv_lines([found], list(shares)))
    assert len(set(head)) == len(head)
    named = dict(zip(head, row, strict=True))
    assert (named["path"], named["label"]) == ("x.wav", "path")
    assert named["probability of path"] == "0.7500"


def test_on_a_terminal_answers_are_not_mixed_with_a_bar(run_folder, folder):
    read, write = os.openpty()
    program = "from stapes.__main__ import main; main()"
    command = [sys.executable, "-c", program, "predict", run_folder, folder]
    subprocess.run(command, stdout=write, stderr=write, timeout=60, check=True)
    os.close(write)
    told = b""
    with contextlib.suppress(OSError):  # at its end
        while part := os.read(read, 1 << 16):
            told += part
    os.close(read)
    assert b"c.wav" in told
    assert b"\x1b" not in told


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
