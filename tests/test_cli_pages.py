"""The command line of explain and demo; what they are made of has tests of its own."""

import shutil

import numpy as np
import pytest
import soundfile

from stapes import (
    demonstration,
    explanation,
    reporting,
)
from stapes.inference import load


@pytest.fixture
def explained(monkeypatch):
    """What would be drawn: folder -> name of the recording."""
    drawn = {}

    def write(folder, explanation, *, name, **_):
        drawn[folder] = name
        (folder / "index.html").write_text("page")
        return folder / "index.html"

    monkeypatch.setattr("stapes.pages.clip.write_explanation", write)
    return drawn


def test_explain_writes_once(stapes, run_folder, folder, tmp_path, explained):
    args = ["explain", run_folder, folder / "a.wav", "--out", tmp_path / "figures"]
    ended = stapes(*args)
    assert (ended.code, ended.out) == (0, b"")
    assert "figures/index.html" in ended.err
    assert explained == {tmp_path / "figures": "a.wav"}
    assert "--overwrite" in stapes(*args).error
    assert stapes(*args, "--overwrite").code == 0


def test_explain_tells_what_is_unusual(folder, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "stapes.pages.clip.write_explanation", lambda *_, notes, **__: told.append(notes)
    )
    soundfile.write(folder / "silence.wav", np.zeros(16_000), 16_000)
    for name in ("silence.wav", "c.wav"):
        explanation.explain("cats-dogs", folder / name, out=tmp_path / "x")
    assert "likely none of cat, dog" in told[0]
    assert "shorter than a segment of 1 s; padded" in told[1]


def test_explain_says_what_predict_says(folder, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(
        "stapes.pages.clip.write_explanation", lambda _, given, **names: found.append(given)
    )
    explanation.explain("cats-dogs", folder / "b.wav", out=tmp_path / "x")
    classifier = load("cats-dogs")
    said = classifier.predict(folder / "b.wav").probabilities
    assert classifier.model.calibration.clip_temperature != 1
    assert found[0].probabilities.tolist() == pytest.approx(list(said.values()), abs=1e-5)


def test_explain_refuses_what_makes_no_figure(stapes, run_folder, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(explanation, "MAX_SECONDS", 1.0)
    ended = stapes("explain", run_folder, folder / "b.wav", "--out", tmp_path / "x")
    assert ended.code == 2
    assert "lasts 2 s: cut out the piece of interest, at most 1 s" in ended.error
    assert not (tmp_path / "x").exists()
    (folder / "bad.wav").write_bytes(b"no audio")
    assert stapes("explain", run_folder, folder / "bad.wav", "--out", tmp_path / "x").code == 4


def test_pages_of_labels_that_files_cannot_tell_apart_are_two(
    tones_folder, tmp_path, monkeypatch, explained
):
    for old, new in (("high", "a?b"), ("low", "a:b")):
        shutil.copytree(tones_folder / old, tmp_path / "data" / new)
    monkeypatch.setattr(reporting, "render", lambda *_, **__: "page")
    quick = {"epochs": 1, "steps_per_epoch": 3, "batch_size": 4}
    pages = demonstration.demo(tmp_path / "data", out=tmp_path / "demo", **quick)["pages"]
    places = [pages[f"one {label}"].parent.name for label in ("a?b", "a:b")]
    assert sorted(places) == ["explain-a_b", "explain-a_b_"]


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
    taken = stapes("demo", tones_folder, "--out", tmp_path / "demo")
    assert (taken.code, "--resume" in taken.err) == (2, False)
    monkeypatch.setattr(demonstration, "MAX_SECONDS", 0.5)  # shorter than any of them
    ended = stapes("demo", tones_folder, "--out", tmp_path / "short")
    assert ended.code == 0
    assert len(ended.err.splitlines()) == 1


def test_demo_trains_as_it_is_asked_to(tones_folder, tmp_path, monkeypatch, explained):
    monkeypatch.setattr(reporting, "render", lambda *_, **__: "page")
    quick = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4}
    found = demonstration.demo(tones_folder, out=tmp_path, preset="small", threads=1, **quick)
    assert found["metrics"]["preset"] == "small"
    assert found["metrics"]["settings"]["steps_per_epoch"] == 2


def test_demo_stays_in_its_folder_whatever_the_classes_are_called(
    tones_folder, tmp_path, monkeypatch, explained
):
    monkeypatch.setattr(reporting, "render", lambda *_, **__: "page")
    rows = [
        f"{path.relative_to(tones_folder)},{path.parent.name}/../../evil"
        for path in sorted(tones_folder.rglob("*.wav"))
    ]
    (tmp_path / "in").symlink_to(tones_folder)
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file_name,label", *(f"in/{row}" for row in rows)]))
    out = tmp_path / "demo"
    demonstration.demo(table, out=out, epochs=1, steps_per_epoch=3, batch_size=4)
    assert len(explained) == 2
    assert {path.resolve().parent for path in explained} == {out}
