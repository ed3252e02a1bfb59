"""The protocols on tones: files and keys of a run, and what is kept when it fails."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from conftest import QUICK
from stapes import checkpoint, crossvalidation, experiment, stepping, training
from stapes.assessment import evaluate
from stapes.config import TrainingConfig
from stapes.crossvalidation import crossval
from stapes.dataset import load_dataset
from stapes.demonstration import demo
from stapes.errors import DataError, StapesError, StopRequestedError, TrainingError, UsageError
from stapes.holdout import train
from stapes.inference import load
from stapes.threads import thread_count
from tones import RATE, tone, write_tone, write_tones

SHORT = {"epochs": 4, "steps_per_epoch": 4, "batch_size": 4, "validation_share": 0.3}


def check_part(part: dict, *, n: int | None = None) -> None:
    assert 0 <= part["accuracy"] <= 1
    assert 0 <= part["balanced_accuracy"] <= 1
    assert part["n"] == (part["n"] if n is None else n) > 0


def test_a_run_is_four_files_with_the_keys_that_others_rely_on(run_folder, tones_folder):
    names = {"model.safetensors", "metrics.json", "history.jsonl", "report.html"}
    names |= {"state.safetensors", "suspicious.csv", "audacity"}
    assert {path.name for path in run_folder.iterdir()} == names
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert {"parameters", "segments", "clips", "seconds", "version"} <= set(metrics)
    assert metrics["parameters"] == 3041
    assert metrics["seconds"] > 0
    for part in ("segments", "clips"):
        check_part(metrics[part])
    low, high = metrics["clips"]["interval"]
    assert 0 <= low <= metrics["clips"]["accuracy"] <= high <= 1
    held = {clip["name"]: clip["label"] for clip in metrics["held_out"]}
    assert len(held) == metrics["clips"]["n"] < len(load_dataset(tones_folder).clips)
    assert set(held.values()) == {"low", "high"}
    rows = [json.loads(line) for line in (run_folder / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [40, 80]
    page = (run_folder / "report.html").read_text()
    assert "<html" in page
    assert f"{metrics['clips']['n']}" in page


def test_the_model_is_the_one_that_was_measured(run_folder, tones_folder):
    classifier = load(run_folder)
    metrics = json.loads((run_folder / "metrics.json").read_text())
    answers = [
        classifier.predict(tones_folder / clip["name"]).label == clip["label"]
        for clip in metrics["held_out"]
    ]
    assert sum(answers) / len(answers) == metrics["clips"]["accuracy"]
    assert metrics["clips"]["accuracy"] == 1  # tones an octave apart are not hard
    assert classifier.model.about["sources"] == 16 - metrics["clips"]["n"]


@pytest.fixture(scope="module")
def eight_classes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("eight")
    for label in "abcdefgh":
        write_tones(root / label, n_each=3, seed=ord(label))
    return root


@pytest.mark.parametrize(("told", "epochs"), [({}, 77), ({"epochs": 3}, 3)])
@pytest.mark.parametrize("protocol", [train, crossval])
def test_four_times_the_classes_take_more_epochs(
    protocol, told, epochs, eight_classes, tmp_path, monkeypatch
):
    def learn(*_, settings: TrainingConfig, **__):
        raise TrainingError(f"for {settings.epochs} epochs")

    monkeypatch.setattr(experiment, "learn", learn)
    with pytest.raises(TrainingError, match=f"for {epochs} epochs"):
        protocol(eight_classes, out=tmp_path / "run", **told)


# What is kept when training fails.


def poisoned(monkeypatch, *, step: int) -> None:
    original, calls = stepping.log_probabilities, iter(range(1, 10_000))

    def log_probabilities(*logits):
        return original(*logits) * (float("nan") if next(calls) == step else 1.0)

    monkeypatch.setattr(stepping, "log_probabilities", log_probabilities)


def test_a_loss_that_is_not_finite_keeps_the_best_model_and_names_the_clips(
    tones_folder, tmp_path, monkeypatch
):
    poisoned(monkeypatch, step=6)
    with pytest.raises(TrainingError, match=r"nan at step 6.*(high|low)/\d\.wav.*epoch 1 is kept"):
        train(tones_folder, out=tmp_path, **SHORT)
    kept = checkpoint.load(tmp_path / "model.safetensors")
    assert kept.config.classes == ("high", "low")
    assert not (tmp_path / "metrics.json").exists()


def test_a_loss_that_is_never_finite_leaves_no_model(tones_folder, tmp_path, monkeypatch):
    poisoned(monkeypatch, step=1)
    with pytest.raises(TrainingError, match="no epoch was complete, so there is no model"):
        train(tones_folder, out=tmp_path, **SHORT)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_gpu_out_of_memory_is_told_with_a_batch_size_to_try(tones_folder, tmp_path, monkeypatch):
    def full(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stepping, "log_probabilities", full)
    with pytest.raises(TrainingError, match=r"batch size of 4; try --batch-size 2; no epoch"):
        train(tones_folder, out=tmp_path, **SHORT)


def test_a_signal_leaves_no_model_but_a_state(tones_folder, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise StopRequestedError(15, "interrupted after step 3")

    monkeypatch.setattr(training, "fit", stopped)
    with pytest.raises(StopRequestedError, match="step 3") as caught:
        train(tones_folder, out=tmp_path, **SHORT)
    assert caught.value.exit_code == 143
    assert list(tmp_path.iterdir()) == []  # nor a lock


@pytest.mark.parametrize("command", [train, crossval, demo])
def test_an_unknown_setting_is_told_with_the_nearest_one(tones_folder, tmp_path, command):
    with pytest.raises(UsageError, match="no setting epoch: did you mean epochs"):
        command(tones_folder, out=tmp_path / "run", epoch=3)
    with pytest.raises(UsageError, match="no setting leak: did you mean leaks"):
        evaluate("cats-dogs", tones_folder, leak="allow")
    assert not (tmp_path / "run").exists()


def test_threads_are_those_asked_for_and_then_what_they_were(
    tones_folder, tmp_path, monkeypatch, no_report
):
    seen, learn = [], experiment.learn

    def looking(*arguments, **options):
        seen.append(thread_count())
        return learn(*arguments, **options)

    monkeypatch.setattr(experiment, "learn", looking)
    before = thread_count()
    for n_threads in (1, 2):
        train(tones_folder, out=tmp_path / str(n_threads), threads=n_threads, **SHORT)
    assert seen == [1, 2]
    assert thread_count() == before


def test_events_held_out_are_told_with_their_times(tmp_path, no_report):
    rows = ["file_name,label,start_seconds,end_seconds"]
    for label in ("high", "low"):
        for i in range(4):
            write_tone(tmp_path / f"{label}{i}.wav", label, seed=i)
            rows += [f"{label}{i}.wav,{label},0,0.5", f"{label}{i}.wav,{label},0.5,1"]
    (tmp_path / "events.csv").write_text("\n".join(rows))
    held = train(tmp_path / "events.csv", out=tmp_path / "run", **SHORT)["held_out"]
    assert [(c["start_seconds"], c["end_seconds"]) for c in held] == [(0, 0.5), (0.5, 1)] * 2
    assert len({clip["name"] for clip in held}) == 2


def test_output_inside_the_data_is_refused_before_anything_is_made(tones_folder):
    with pytest.raises(UsageError, match="which is read"):
        train(tones_folder, out=tones_folder / "run", **SHORT)
    assert not (tones_folder / "run").exists()


# Cross-validation.


@pytest.fixture
def two_seeds(tones_folder, tmp_path, monkeypatch):
    """Result of crossval on tones some of which share sources, and who learnt from whom."""
    clips = load_dataset(tones_folder).clips
    lines = ["file_name,label,source"]
    for clip in clips:
        number = int(Path(clip.name).stem)
        lines.append(
            f"{clip.path},{clip.label},{clip.label}{number // 2 if number < 4 else number}"
        )
    (tmp_path / "table.csv").write_text("\n".join(lines))
    pairs, original_fit, original_measure = [], training.fit, crossvalidation.measure

    def fit(config, settings, *, training, validation, **more):
        pairs.append([settings.seed, set(training.names), set(validation.names), set()])
        return original_fit(config, settings, training=training, validation=validation, **more)

    def measure(network, clips, waveforms):
        pairs[-1][3] |= {clip.name for clip in clips}
        return original_measure(network, clips, waveforms)

    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(crossvalidation, "measure", measure)
    quick = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "validation_share": 0.1}
    metrics = crossval(tmp_path / "table.csv", seeds=2, **quick)
    sources = {c.name: c.source for c in load_dataset(tmp_path / "table.csv").clips}
    return metrics, pairs, sources


def test_cross_validation_never_has_a_source_on_two_sides(two_seeds):
    _, pairs, sources = two_seeds
    assert len(pairs) == 2 * 2 * 5  # and the same again, split by file
    pairs = pairs[: 2 * 5]
    for _, *parts in pairs:
        by_part = [{sources[name] for name in part} for part in parts]
        assert all(by_part)
        assert sum(map(len, by_part)) == len(set.union(*by_part)) == len(set(sources.values()))
    for seed in (0, 1):
        held = [name for s, _, _, held in pairs if s == seed for name in held]
        assert sorted(held) == sorted(sources)  # every clip is judged once a seed


def test_a_split_by_file_has_no_more_folds_than_the_rarest_class_has_files(tones_folder, tmp_path):
    rows = [f"{tones_folder}/low/{i}.wav,low,l{i // 2},{i // 2}" for i in range(8)]
    rows += [f"{tones_folder}/high/{i}.wav,high,h{i},{i}" for i in range(3)]
    (tmp_path / "table.csv").write_text("\n".join(["file_name,label,source,fold", *rows]))
    quick = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2}
    metrics = crossval(tmp_path / "table.csv", seeds=1, **quick)
    assert len(metrics["folds"]) == 4 and metrics["by_file"]["clips"]["n"] == 11


def test_cross_validation_counts_distinct_clips_and_says_all_it_should(two_seeds):
    metrics, _, sources = two_seeds
    keys = {"parameters", "segments", "clips", "seconds", "version", "folds", "seeds"}
    assert keys <= set(metrics)
    check_part(metrics["clips"], n=len(sources))
    assert [fold["fold"] for fold in metrics["folds"]] == [1, 2, 3, 4, 5]
    assert [row["seed"] for row in metrics["seeds"]] == [0, 1]
    assert sum(fold["clips"]["n"] for fold in metrics["folds"]) == len(sources)
    for row in metrics["seeds"]:
        check_part(row["clips"], n=len(sources))
        check_part(row["segments"], n=metrics["segments"]["n"])
    mean = sum(row["clips"]["accuracy"] for row in metrics["seeds"]) / 2
    assert metrics["clips"]["accuracy"] == pytest.approx(mean)
    assert sum(map(sum, metrics["clips"]["confusion"])) == 2 * len(sources)
    json.dumps(metrics)


def test_folds_are_called_what_the_data_call_them(tones_folder, tmp_path, no_report):
    (tmp_path / "in").symlink_to(tones_folder)
    names = sorted(tones_folder.rglob("*.wav"))
    rows = [
        f"in/{p.relative_to(tones_folder)},{p.parent.name},{10 * (i % 3)}"
        for i, p in enumerate(names)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["file_name,label,fold", *rows]))
    metrics = crossval(tmp_path / "table.csv", seeds=1, **SHORT)
    assert [row["fold"] for row in metrics["folds"]] == [0, 10, 20]
    assert [row["clips"]["n"] for row in metrics["folds"]] == [6, 5, 5]


def test_the_seed_of_a_cross_validation_is_refused(tones_folder):
    with pytest.raises(UsageError, match="trains with the seeds 0, 1"):
        crossval(tones_folder, seed=3)


@pytest.mark.parametrize("seeds", [0, -1])
def test_too_few_seeds_are_told_before_the_work(tmp_path, seeds):
    with pytest.raises(UsageError, match=f"seeds is {seeds}"):
        crossval(tmp_path / "missing", seeds=seeds)


# Evaluation.


def test_evaluate_measures_recordings_it_has_not_seen(run_folder, tmp_path):
    write_tones(tmp_path, n_each=3, seed=5)
    metrics = evaluate(run_folder, tmp_path)
    check_part(metrics["clips"], n=6)
    assert metrics["clips"]["accuracy"] == metrics["clips"]["roc_area"] == 1
    assert metrics["clips"]["confusion"] == [[3, 0], [0, 3]]
    assert metrics["profile"] == load(run_folder).model.profile.as_dict()  # what it learnt from
    n_sources = metrics["clips"]["n_sources"]  # all right: Clopper and Pearson's interval
    assert metrics["clips"]["interval"] == pytest.approx([0.025 ** (1 / n_sources), 1])


def test_evaluate_on_wrong_labels_finds_all_of_them_wrong(run_folder, tmp_path):
    for i in range(2):
        write_tone(tmp_path / "low" / f"{i}.wav", "high", seed=i)
        write_tone(tmp_path / "high" / f"{i}.wav", "low", seed=i)
    assert evaluate(run_folder, tmp_path)["clips"]["accuracy"] == 0


def test_evaluate_hears_what_prediction_hears(run_folder, tmp_path):
    wave = np.append(tone("low", seed=5, seconds=1.5), 0.05 * tone("high", seed=6, seconds=4))
    (tmp_path / "low").mkdir()
    soundfile.write(tmp_path / "low" / "0.wav", wave, RATE, subtype="FLOAT")
    metrics = evaluate(run_folder, tmp_path)
    assert metrics["clips"]["accuracy"] == 1
    assert metrics["segments"]["n"] == 6  # that begin in the loud part: every 0.25 of 1.5 s


def test_evaluate_on_one_class_has_no_roc_area_but_an_accuracy(run_folder, tmp_path):
    write_tone(tmp_path / "low" / "0.wav", "low", seed=1)
    metrics = evaluate(run_folder, tmp_path)
    assert metrics["clips"]["accuracy"] == 1
    assert metrics["clips"]["roc_area"] != metrics["clips"]["roc_area"]  # nan


def test_a_label_that_the_model_does_not_know_is_named(run_folder, tmp_path):
    write_tone(tmp_path / "low" / "0.wav", "low", seed=1)
    write_tone(tmp_path / "middle" / "0.wav", "low", seed=2)
    with pytest.raises(DataError, match=r"'middle' is not a class of the model \(high, low\)"):
        evaluate(run_folder, tmp_path)


def test_what_cannot_be_read_is_listed_in_the_result(run_folder, tmp_path):
    write_tones(tmp_path, n_each=2, seed=5)
    (tmp_path / "low" / "bad.wav").write_bytes(b"no audio")
    metrics = evaluate(run_folder, tmp_path)
    assert [skip["name"] for skip in metrics["skipped"]] == ["low/bad.wav"]
    assert metrics["clips"]["n"] == 4


def test_cuda_asked_for_and_absent_names_the_option(tones_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(StapesError, match="--device"):
        train(tones_folder, out=tmp_path / "run", device="cuda", **QUICK)
