"""What keeps results honest: leaks mended or refused, foreign sounds, doubts, comparisons."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from recordings import rustle, write_wave
from stapes import account, checkpoint, experiment, holdout, reporting
from stapes.assessment import evaluate
from stapes.config import ModelConfig
from stapes.crossvalidation import crossval
from stapes.errors import DataError, UsageError
from stapes.experiment import DataOptions
from stapes.holdout import train
from stapes.inference import load
from stapes.progress import silent
from stapes.splits import folds
from tones import RATE, write_tones

QUICK = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4}
CONFIG = ModelConfig(("cat", "dog"))


@pytest.fixture
def overlapping(tmp_path) -> Path:
    """Two classes of four recordings in two folds; a/0 and a/1 overlap, and lie in both folds."""
    root, rows = tmp_path / "in", ["file_name,label,fold"]
    long = rustle(5, seed=100)
    for label in "ab":
        for i in range(4):
            shared = long[: 3 * RATE] if i == 0 else long[RATE * 3 // 2 :]
            own = rustle(2, seed=10 * ord(label) + i)
            write_wave(root / label / f"{i}.wav", shared if (label, i < 2) == ("a", True) else own)
            rows.append(f"{label}/{i}.wav,{label},{1 + i % 2}")
    (root / "metadata.csv").write_text("\n".join(rows))
    return root


def read(data: Path, **options):
    return experiment.read(data, silent, options=DataOptions(**options))


def test_dead_recordings_are_told_and_say_nothing_of_what_is_usual(tones_folder, tmp_path):
    data = shutil.copytree(tones_folder, tmp_path / "in")
    usual = experiment.profile_of(read(data)[0])
    label = next(path.name for path in sorted(data.iterdir()) if path.is_dir())
    for name, value in (("silent", 0.0), ("constant", 0.3)):
        write_wave(data / label / f"{name}.wav", np.full(RATE, value, np.float32))
    decoded, _ = read(data)
    told = f"from beginning to end: 2 ({label}/constant.wav, {label}/silent.wav)"
    assert told in decoded.warnings[-1]
    assert experiment.profile_of(decoded) == usual
    (data / "noise").mkdir()  # where silence is no fault
    for name in ("silent", "constant"):
        shutil.move(data / label / f"{name}.wav", data / "noise")
    assert not any("from beginning to end" in warning for warning in read(data)[0].warnings)


# Leaks.


def test_what_overlaps_the_judged_fold_is_not_learnt_from(overlapping):
    decoded, audit = read(overlapping)
    by_name = {clip.name: clip for clip in decoded.clips}
    assert by_name["a/0.wav"].source == by_name["a/1.wav"].source
    assert len({clip.source for clip in decoded.clips}) == 7
    assert audit["counts"] == {"overlap": 1, "two folds": 1}
    assert "across the split that came with the data" in decoded.warnings[-1]
    assert "nothing is learnt" in decoded.warnings[-1]
    for training, held in folds(decoded.clips, seed=0):
        names = {decoded.clips[i].name for i in training}
        judged = {decoded.clips[i].name for i in held}
        assert len(judged) == 4
        assert len(names) == 3  # of four, one overlaps what is judged
        assert not {"a/0.wav", "a/1.wav"} & names or not {"a/0.wav", "a/1.wav"} & judged


def test_leaks_that_are_allowed_are_told_loudly(overlapping):
    decoded, _ = read(overlapping, leaks="allow")
    pairs = folds(decoded.clips, seed=0, allow_leaks=True)
    assert [len(training) for training, _ in pairs] == [4, 4]
    assert "RESULTS ARE TOO GOOD" in decoded.warnings[-1]


def test_folds_made_anew_keep_what_overlaps_together(overlapping):
    decoded, _ = read(overlapping, leaks="regroup")
    assert {clip.fold for clip in decoded.clips} == {None}
    for _, held in folds(decoded.clips, seed=0, n_folds=2):
        names = {decoded.clips[i].name for i in held}
        assert len({"a/0.wav", "a/1.wav"} & names) in (0, 2)


def test_a_recording_on_both_sides_of_a_split_is_refused_whatever_its_form(overlapping):
    whole, _ = soundfile.read(overlapping / "b/0.wav")
    write_wave(overlapping / "b/1.wav", (0.25 * whole).astype(np.float32))
    with pytest.raises(DataError, match=r"b/0.wav \(fold 1\) and b/1.wav \(fold 2\) are the same"):
        read(overlapping)
    for leaks in ("regroup", "allow"):
        assert len(read(overlapping, leaks=leaks)[0].clips) == 8
    with pytest.raises(UsageError, match="leaks is 'ignore': give one of refuse, regroup, allow"):
        read(overlapping, leaks="ignore")


def test_a_test_part_is_refused_too_if_it_was_trained_on(tmp_path):
    for part, first in (("train", 0), ("test", 4)):
        for label in "ab":
            for i in range(4):
                wave = rustle(1.5, seed=10 * ord(label) + first + i)
                write_wave(tmp_path / part / label / f"{i}.wav", wave)
    read(tmp_path)
    copy, _ = soundfile.read(tmp_path / "test/a/0.wav")
    write_wave(tmp_path / "train/a/copy.wav", (0.5 * copy).astype(np.float32))
    with pytest.raises(DataError, match=r"\(part test\).*\(part train\)"):
        read(tmp_path)


def test_the_same_sound_under_two_labels_is_told(overlapping):
    whole, _ = soundfile.read(overlapping / "b/1.wav")
    write_wave(overlapping / "a/3.wav", (0.25 * whole).astype(np.float32))
    assert read(overlapping)[0].warnings[-1] == (
        "recordings with different labels share audio (1 pair): a/3.wav = b/1.wav: correct"
        " the labels, or remove one of each"
    )


# Runs and reports.


def test_crossval_leaves_a_run_that_reports_itself_again(tmp_path, overlapping):
    out = tmp_path / "run"
    metrics = crossval(overlapping, out=out, seeds=1, **QUICK)
    assert json.loads((out / "metrics.json").read_text())["clips"] == metrics["clips"]
    assert {row["name"] for row in metrics["baselines"]} >= {"majority class", "loudness only"}
    assert metrics["by_file"]["clips"]["n"] == metrics["clips"]["n"] == 8
    more = metrics["by_file"]["clips"]["accuracy"] - metrics["clips"]["accuracy"]
    assert metrics["by_file"]["difference"]["accuracy"] == pytest.approx(more)
    model = load(out)
    assert model.classes == ("a", "b")
    assert model.model.calibration.clip_temperature == metrics["calibration"]["clip_temperature"]
    page = (out / "report.html").read_text()
    assert "<audio" in page
    reporting.report(out)
    again = (out / "report.html").read_text()
    assert again.count("<audio") == page.count("<audio")
    for path in overlapping.rglob("*.wav"):
        path.unlink()
    reporting.report(out)  # without the recordings there is nothing to play
    assert "<audio" not in (out / "report.html").read_text()


def test_a_cross_validation_goes_on_where_it_ended(tmp_path, overlapping):
    whole = crossval(overlapping, out=tmp_path / "whole", seeds=1, by_file=False, **QUICK)
    assert "by_file" not in whole

    def until_the_second_training(task: str, done: int, total: int, note: str) -> None:
        if (task, done) == ("cross-validating", 3):
            raise KeyboardInterrupt

    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        crossval(
            overlapping,
            out=out,
            seeds=1,
            by_file=False,
            progress=until_the_second_training,
            **QUICK,
        )
    (state,) = (out / "trainings").glob("cross-validating-0-0.*")
    with pytest.raises(UsageError, match="already holds trainings"):
        crossval(overlapping, out=out, seeds=1, by_file=False, **QUICK)
    (out / "trainings" / ".stapes-orphan").touch()  # of a save that was killed
    made = []
    resumed = crossval(
        overlapping,
        out=out,
        seeds=1,
        by_file=False,
        resume=True,
        progress=lambda *told: made.append(told[:2]),
        **QUICK,
    )
    assert ("cross-validating", 1) not in made  # the first training was there
    assert ("cross-validating", 3) in made
    assert not state.parent.exists()
    assert resumed["folds"] == whole["folds"]
    assert len(resumed["training_seconds"]) == 2
    with pytest.raises(UsageError, match="complete"):
        crossval(overlapping, out=out, seeds=1, resume=True, **QUICK)
    model = "model.safetensors"
    assert (out / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()


def test_resuming_a_cross_validation_asks_for_its_folder(overlapping):
    with pytest.raises(UsageError, match="--out"):
        crossval(overlapping, seeds=1, resume=True, **QUICK)


def test_a_command_resumes_its_own_runs_only(run_folder, overlapping, tmp_path):
    with pytest.raises(UsageError, match="run is of stapes train, which crossval cannot resume"):
        crossval(overlapping, out=run_folder, seeds=1, resume=True, **QUICK)
    out = tmp_path / "crossval"
    (out / "trainings").mkdir(parents=True)
    (out / "trainings" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="run is of stapes crossval, which train cannot resume"):
        train(overlapping, out=out, resume=True, **QUICK)
    crossval(overlapping, out=out, seeds=1, by_file=False, overwrite=True, **QUICK)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="run is of stapes crossval, which train cannot resume"):
        train(overlapping, out=out, resume=True, **QUICK)
    assert (out / "model.safetensors").read_bytes() == before


def test_nothing_is_reported_of_a_folder_without_results(tmp_path):
    with pytest.raises(UsageError, match=r"no results to report.*give a run folder"):
        reporting.report(tmp_path)
    for results in (
        "[]",
        '{"data": 1}',
        '{"data": "x"}',
        '{"data": "x", "clips": [], "segments": {}}',
    ):
        (tmp_path / "metrics.json").write_text(results)
        with pytest.raises(UsageError, match="not written by this version"):
            reporting.report(tmp_path)


def test_a_torn_history_is_named(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    with open(tmp_path / "run/history.jsonl", "a") as history:
        history.write('{"torn')
    with pytest.raises(UsageError, match=r"history.jsonl: damaged"):
        reporting.report(tmp_path / "run")


def test_corrected_labels_are_trained_on(tmp_path):
    data = write_tones(tmp_path / "in", n_each=4)
    (data / "low" / "9.wav").write_bytes((data / "high" / "0.wav").read_bytes())
    (data / "high" / "0.wav").unlink()
    table = tmp_path / "fixed.csv"
    table.write_text("file_name,label,new_label\nlow/9.wav,low,high\nlow/0.wav,low,-\n")
    decoded, _ = read(data, labels=table)
    labels = {clip.name: clip.label for clip in decoded.clips}
    assert labels["low/9.wav"] == "high"
    assert "low/0.wav" not in labels
    metrics = train(data, out=tmp_path / "run", labels=table, **QUICK)
    about = load(tmp_path / "run").model.about
    learnt = {label: n - 1 for label, n in {"high": 4, "low": 3}.items()}  # one of each is held out
    assert about["clips"] == learnt
    assert metrics["classes"] == ["high", "low"]


def test_what_is_held_out_is_learnt_from_by_nothing(tmp_path, monkeypatch):
    seen = []
    rules = account.beside_baselines

    def spy(measured, decoded, pairs, **more):
        seen.extend((decoded, pair) for pair in pairs)
        return rules(measured, decoded, pairs, **more)

    monkeypatch.setattr(account, "beside_baselines", spy)
    data = write_tones(tmp_path / "in", n_each=10)
    metrics = train(data, out=tmp_path / "run", validation_share=0.3, **QUICK)
    [(decoded, (learnt, judged))] = seen
    held = {clip["name"] for clip in metrics["held_out"]}
    assert {decoded.clips[i].name for i in judged} == held
    assert len(held) == 4
    assert len(learnt) == 12  # of 16, for 4 chose the best epoch
    assert not held & {decoded.clips[i].name for i in learnt}
    assert metrics["profile"]["n_recordings"] == 20 - 4


def test_two_models_are_compared_on_the_same_clips(run_folder, tones_folder, tmp_path):
    train(tones_folder, out=tmp_path / "worse", **QUICK)
    data = write_tones(tmp_path / "in", n_each=6, seed=9)
    metrics = evaluate(run_folder, data, against=tmp_path / "worse")
    other = evaluate(tmp_path / "worse", data)
    gap = metrics["clips"]["accuracy"] - other["clips"]["accuracy"]
    assert metrics["against"]["clips"]["accuracy"] == other["clips"]["accuracy"]
    assert metrics["against"]["difference"]["accuracy"] == pytest.approx(gap)
    with pytest.raises(DataError, match="compare models of the same classes"):
        evaluate(run_folder, data, against="cats-dogs")
    model = load(run_folder).model
    slower = replace(model, config=replace(model.config, sample_rate=8_000))
    checkpoint.save(tmp_path / "slower.safetensors", slower)
    with pytest.raises(DataError, match=r"8,000 Hz, .* 16,000 Hz: compare models of the same rate"):
        evaluate(run_folder, data, against=tmp_path / "slower.safetensors")


def test_the_model_that_learnt_from_the_recordings_is_the_one_blamed(
    run_folder, tones_folder, tmp_path
):
    train(write_tones(tmp_path / "in", n_each=6, seed=9), out=tmp_path / "other", **QUICK)
    heard = rf"{re.escape(str(tmp_path / 'other'))} learnt from \d+ of the 12 recordings"
    with pytest.raises(DataError, match=heard):
        evaluate(run_folder, tmp_path / "in", against=tmp_path / "other")
    with pytest.raises(DataError, match=rf"{re.escape(str(run_folder))} learnt from"):
        evaluate(run_folder, tones_folder, against=tmp_path / "other")


# What a user must not lose, and what must not stop the work.


def interrupted(*_):
    raise KeyboardInterrupt


def test_nothing_is_thrown_away_before_the_new_run_has_read_all_it_needs(tmp_path, monkeypatch):
    data = write_tones(tmp_path / "in", n_each=5)
    few = write_tones(tmp_path / "few", n_each=2)
    run = tmp_path / "run"
    train(data, out=run, **QUICK)
    (run / "audacity" / "notes.doc").write_text("mine")
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(DataError):
        train(tmp_path / "typo", out=run, overwrite=True, **QUICK)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match="--device"):
        train(data, out=run, overwrite=True, device="cuda", **QUICK)
    with pytest.raises(UsageError, match="--device"):
        crossval(data, out=run, overwrite=True, device="cuda", seeds=1, **QUICK)
    with pytest.raises(DataError, match="hold some out"):
        train(few, out=run, overwrite=True, validation_share=0.5, **QUICK)
    with pytest.raises(UsageError, match="is where the model"):
        evaluate(run, write_tones(tmp_path / "new", n_each=1, seed=5), out=run, overwrite=True)
    labels = "file_name,label,new_label\nlow/0.wav,low,high\n"
    (run / "suspicious.csv").write_text(labels)
    for protocol in (train, crossval):
        with pytest.raises(UsageError, match="to be overwritten"):
            protocol(data, out=run, overwrite=True, labels=run / "suspicious.csv", **QUICK)
    assert (run / "suspicious.csv").read_text() == labels
    with monkeypatch.context() as patched:
        patched.setattr(holdout, "_learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(data, out=run, overwrite=True, **QUICK)
    assert (run / "model.safetensors").read_bytes() == before
    assert not (run / "state.safetensors").exists()
    (tmp_path / "corrected.csv").write_text(labels)
    metrics = train(data, out=run, overwrite=True, labels=tmp_path / "corrected.csv", **QUICK)
    assert any("low/0.wav" in warning for warning in metrics["warnings"])
    assert (run / "audacity" / "notes.doc").read_text() == "mine"
