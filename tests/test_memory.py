"""What a model learnt from is no test of it, nor of what it takes for one of its classes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from recordings import rustle, write_wave
from stapes import experiment
from stapes.assessment import evaluate
from stapes.config import ModelConfig
from stapes.errors import DataError
from stapes.holdout import train
from stapes.inference import load
from stapes.memory import Memory, shares_audio
from stapes.progress import silent
from tones import RATE, write_tones

QUICK = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4}
CONFIG = ModelConfig(("cat", "dog"))


def test_a_model_is_not_measured_on_what_it_learnt(run_folder, tones_folder, tmp_path):
    n_held = len(json.loads((run_folder / "metrics.json").read_text())["held_out"])
    with pytest.raises(DataError, match=f"{run_folder.name} learnt from {16 - n_held} of the 16"):
        evaluate(run_folder, tones_folder)
    others = evaluate(run_folder, tones_folder, leaks="regroup")
    assert others["clips"]["n"] == n_held
    assert "these are left out" in others["warnings"][-2]
    told = f"the model was calibrated on {n_held} of these {n_held} recordings"
    assert told in others["warnings"][-1]
    everything = evaluate(run_folder, tones_folder, leaks="allow")
    assert everything["clips"]["n"] == 16
    assert "results are too good" in everything["warnings"][-2]


def test_where_the_model_learnt_from_everything_no_option_helps(run_folder, tones_folder, tmp_path):
    held = {c["name"] for c in json.loads((run_folder / "metrics.json").read_text())["held_out"]}
    data = shutil.copytree(tones_folder, tmp_path / "in")
    for name in held:
        (data / name).unlink()
    for leaks in ("refuse", "regroup"):
        with pytest.raises(DataError, match="give others, or --leaks allow"):
            evaluate(run_folder, data, leaks=leaks)


def test_only_the_run_that_made_a_model_says_what_it_learnt_from(run_folder, tmp_path, monkeypatch):
    """What lies beside a copy, or in a folder with the name of a shipped model, does not."""
    judged = write_tones(tmp_path / "other", n_each=2, seed=5)
    evaluate(run_folder, judged, out=tmp_path / "copy")
    copy = evaluate(tmp_path / "copy", judged)
    assert copy["warnings"] == [
        f"what {tmp_path / 'copy'} learnt from is not at hand: only exact copies are recognised"
    ]
    monkeypatch.chdir(run_folder)
    assert not Memory.of(load(run_folder).model, "cats-dogs", progress=silent).clips.clips


def test_a_model_is_not_measured_on_what_overlaps_its_training_set(tmp_path):
    for label in "ab":
        for i in range(6):
            write_wave(tmp_path / "in" / label / f"{i}.wav", rustle(3, seed=10 * ord(label) + i))
    train(tmp_path / "in", out=tmp_path / "run", **QUICK)
    held = json.loads((tmp_path / "run" / "metrics.json").read_text())["held_out"]
    learnt = [f"{x}/{i}.wav" for x in "ab" for i in range(6)]
    learnt = [name for name in learnt if name not in {clip["name"] for clip in held}]
    wave, _ = soundfile.read(tmp_path / "in" / learnt[0])
    write_wave(tmp_path / "new" / "a" / "cut.wav", (0.3 * wave[RATE // 2 :]).astype(np.float32))
    write_wave(tmp_path / "new" / "a" / "other.wav", rustle(2, seed=1))
    with pytest.raises(DataError, match=r"learnt from 1 of the 2 recordings \(a/cut.wav\)"):
        evaluate(tmp_path / "run", tmp_path / "new")
    assert evaluate(tmp_path / "run", tmp_path / "new", leaks="regroup")["clips"]["n"] == 1


def test_a_model_is_not_measured_on_other_events_of_files_that_it_learnt_from(tmp_path):
    for label in "ab":
        for i in range(4):
            write_wave(tmp_path / f"{label}{i}.wav", rustle(6, seed=10 * ord(label) + i))

    def table(name: str, rows: list[str]) -> Path:
        path = tmp_path / name
        path.write_text("\n".join(["file_name,label,start_seconds,end_seconds", *rows]))
        return path

    files = [(x, f"{x}{i}.wav") for x in "ab" for i in range(4)]
    first = table("first.csv", [f"{name},{label},0,2" for label, name in files])
    train(first, out=tmp_path / "run", **QUICK)
    held = {
        clip["name"]
        for clip in json.loads((tmp_path / "run" / "metrics.json").read_text())["held_out"]
    }
    assert held
    later = table("later.csv", [f"{tmp_path / name},{label},3.5,5.5" for label, name in files])
    with pytest.raises(DataError, match=f"learnt from {8 - len(held)} of the 8"):
        evaluate(tmp_path / "run", later)
    for model in ("run", "run/model.safetensors"):
        assert evaluate(tmp_path / model, later, leaks="regroup")["clips"]["n"] == len(held)
    copies = tmp_path / "copies"
    copies.mkdir()
    for _, name in files:
        (copies / name).write_bytes((tmp_path / name).read_bytes())
    (tmp_path / "later.csv").rename(copies / "later.csv")
    moved = [f"{name},{label},3.5,5.5" for label, name in files]
    with pytest.raises(DataError, match=f"learnt from {8 - len(held)} of the 8"):
        evaluate(tmp_path / "run", table("copies/moved.csv", moved))


def test_copies_do_not_hide_what_overlaps_the_training_set(tmp_path):
    learnt = rustle(5, seed=1)
    write_wave(tmp_path / "in" / "x" / "a.wav", learnt)
    for name, wave in {"a": learnt, "b": learnt[RATE:], "c": rustle(3, seed=2)}.items():
        write_wave(tmp_path / "new" / "x" / f"{name}.wav", wave)
    asked, among = (
        experiment.read(tmp_path / folder, silent, config=CONFIG)[0] for folder in ("new", "in")
    )
    assert shares_audio(asked, among, progress=silent) == [True, True, False]


def test_a_memory_hears_recordings_whose_labels_were_corrected_and_tells_of_lost_ones(tmp_path):
    data = tmp_path / "in"
    for label in "ab":
        for i in range(4):
            write_wave(data / label / f"{i}.wav", rustle(3, seed=10 * ord(label) + i))
    (data / "b" / "wrong.wav").write_bytes((data / "a" / "0.wav").read_bytes())
    (tmp_path / "fixed.csv").write_text("file_name,label,new_label\nb/wrong.wav,b,a\n")
    run = tmp_path / "run"
    train(data, out=run, labels=tmp_path / "fixed.csv", **QUICK)
    held = {c["name"] for c in json.loads((run / "metrics.json").read_text())["held_out"]}
    learnt = next(f"b/{i}.wav" for i in range(4) if f"b/{i}.wav" not in held)
    wave, _ = soundfile.read(data / learnt)
    write_wave(tmp_path / "new" / "b" / "cut.wav", (0.5 * wave[RATE // 2 :]).astype(np.float32))
    write_wave(tmp_path / "new" / "a" / "other.wav", rustle(2, seed=1))
    with pytest.raises(DataError, match=r"learnt from 1 of the 2 recordings \(b/cut.wav\)"):
        evaluate(run, tmp_path / "new")
    data.rename(tmp_path / "elsewhere")
    assert any("no longer in" in warning for warning in evaluate(run, tmp_path / "new")["warnings"])


def test_foreign_sounds_are_counted_by_their_folder(run_folder, tmp_path):
    for i in range(3):
        write_wave(tmp_path / "foreign" / "rain" / f"{i}.wav", rustle(1.5, seed=i))
        write_wave(tmp_path / "foreign" / "wind" / f"{i}.wav", rustle(1.5, seed=10 + i))
    (tmp_path / "foreign" / "rain" / "bad.wav").write_bytes(b"no audio")
    data = write_tones(tmp_path / "tones", n_each=2, seed=7)
    metrics = evaluate(run_folder, data, foreign=[tmp_path / "foreign"])
    assert [skip["name"] for skip in metrics["skipped"]] == ["foreign/rain/bad.wav"]
    assert metrics["clips"]["n"] == 4
    foreign = metrics["acceptance"]["foreign"]
    assert foreign["n"] == 6
    assert {label: part["n"] for label, part in foreign["by_label"].items()} == {
        "rain": 3,
        "wind": 3,
    }
    assert foreign["called_before"] == 1
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no recordings in it"):
        evaluate(run_folder, data, foreign=[tmp_path / "nothing"])


def test_foreign_sounds_that_were_learnt_from_prove_nothing(run_folder, tones_folder, tmp_path):
    data = write_tones(tmp_path / "tones", n_each=2, seed=7)
    held = json.loads((run_folder / "metrics.json").read_text())["held_out"]
    learnt = {f"{x}/{i}.wav" for x in ("high", "low") for i in range(8)}
    learnt = sorted(learnt - {clip["name"] for clip in held})
    foreign = tmp_path / "foreign"
    write_wave(foreign / "rain" / "0.wav", rustle(1.5, seed=0))
    wave, _ = soundfile.read(tones_folder / learnt[0])
    write_wave(foreign / "tone" / "learnt.wav", wave)
    wave, _ = soundfile.read(data / "low" / "0.wav")
    write_wave(foreign / "tone" / "judged.wav", 0.5 * wave)
    metrics = evaluate(run_folder, data, foreign=[foreign])
    assert metrics["acceptance"]["foreign"]["n"] == 1
    assert any("foreign/tone/learnt.wav" in warning for warning in metrics["warnings"])
    assert any("foreign/tone/judged.wav" in warning for warning in metrics["warnings"])
    twice = evaluate(run_folder, data, foreign=[foreign, foreign / "rain"])
    assert twice["acceptance"]["foreign"]["n"] == 1
    with pytest.raises(DataError, match=r"share audio with recordings of the data.*give a folder"):
        evaluate(run_folder, data, foreign=[data / "low"])
    trained = train(data, out=tmp_path / "run", foreign=[foreign], **QUICK)
    assert trained["acceptance"]["foreign"]["n"] == 2


def test_a_foreign_folder_may_be_called_like_a_class_and_hold_copies(run_folder, tmp_path):
    for name in ("low", "rain"):
        write_wave(tmp_path / "foreign" / name / "0.wav", rustle(1.5, seed=0))
    data = write_tones(tmp_path / "tones", n_each=2, seed=7)
    metrics = evaluate(run_folder, data, foreign=[tmp_path / "foreign"])
    assert metrics["clips"]["n"] == 4
    assert metrics["acceptance"]["foreign"]["by_label"].keys() == {"low", "rain"}
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.wav").write_bytes(b"no audio")
    with pytest.raises(DataError, match="bad: nothing"):
        evaluate(run_folder, data, foreign=[tmp_path / "bad"])


def test_what_either_of_two_compared_models_learnt_from_is_no_test(run_folder, tmp_path):
    other = write_tones(tmp_path / "other", n_each=4, seed=11)
    train(other, out=tmp_path / "run", **QUICK)
    held = json.loads((tmp_path / "run" / "metrics.json").read_text())["held_out"]
    learnt = next(f"low/{i}.wav" for i in range(4) if f"low/{i}.wav" not in str(held))
    wave, _ = soundfile.read(other / learnt)
    write_wave(tmp_path / "foreign" / "0.wav", wave)
    write_wave(tmp_path / "foreign" / "1.wav", rustle(1.5, seed=0))
    data = write_tones(tmp_path / "in", n_each=2, seed=7)
    foreign = [tmp_path / "foreign"]
    metrics = evaluate(run_folder, data, against=tmp_path / "run", foreign=foreign)
    assert metrics["acceptance"]["foreign"]["n"] == 1
