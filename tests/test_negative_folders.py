"""Recordings of none of the classes: learnt from, judged by, and never the only ones."""

import json

import pytest

from recordings import rustle, write_wave
from stapes.assessment import evaluate
from stapes.crossvalidation import crossval
from stapes.errors import DataError
from stapes.holdout import train
from stapes.inference import load
from tones import write_tones

QUICK = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4}


def test_a_folder_of_noise_is_no_class_but_something_to_tell_the_classes_from(tmp_path):
    data = write_tones(tmp_path / "in", n_each=6)
    for i in range(6):
        write_wave(data / "Noise" / f"{i}.wav", rustle(1.5, seed=i))
    metrics = train(data, out=tmp_path / "run", **QUICK)
    assert metrics["classes"] == ["high", "low"]
    assert metrics["clips"]["n"] == sum(map(sum, metrics["clips"]["confusion"]))
    assert metrics["acceptance"]["foreign"]["by_label"].keys() == {"Noise"}
    assert load(tmp_path / "run").classes == ("high", "low")


def test_negatives_may_be_few_and_in_one_fold(tmp_path):
    data = write_tones(tmp_path / "in", n_each=5)
    write_wave(data / "noise" / "0.wav", rustle(1.5, seed=0))
    assert train(data, out=tmp_path / "run", **QUICK)["classes"] == ["high", "low"]
    metrics = crossval(data, seeds=1, **QUICK)
    assert metrics["acceptance"]["foreign"]["by_label"]["noise"]["n"] == 1
    assert "by_file" not in metrics  # every file is a source: there is nothing to compare


def test_one_class_beside_noise_is_one_class(tmp_path):
    data = write_tones(tmp_path / "in", n_each=3)
    (data / "high").rename(data / "other")
    told = r"only one class, low \(other is taken for none of the classes, by its name\)"
    with pytest.raises(DataError, match=told):
        train(data, out=tmp_path / "run", **QUICK)


def test_only_noise_cannot_be_learnt(tmp_path):
    for seed, name in enumerate(("noise", "other")):
        write_wave(tmp_path / "in" / name / "0.wav", rustle(1.5, seed=seed))
    with pytest.raises(DataError, match=r"nothing of a class \(noise, other are taken for none"):
        train(tmp_path / "in", out=tmp_path / "run", **QUICK)


def test_only_noise_cannot_be_judged(run_folder, tmp_path):
    write_wave(tmp_path / "noise" / "0.wav", rustle(1.5, seed=0))
    with pytest.raises(DataError, match="nothing but negatives"):
        evaluate(run_folder, tmp_path)


def test_only_noise_that_is_left_cannot_be_judged_either(tmp_path):
    data = write_tones(tmp_path / "in", n_each=3)
    train(data, out=tmp_path / "run", **QUICK)
    held = json.loads((tmp_path / "run" / "metrics.json").read_text())["held_out"]
    for clip in held:
        (data / clip["name"]).unlink()
    write_wave(data / "noise" / "0.wav", rustle(1.5, seed=0))
    with pytest.raises(DataError, match="nothing but negatives"):
        evaluate(tmp_path / "run", data, leaks="regroup")


def test_a_test_part_of_noise_alone_is_refused_before_training(tmp_path):
    data = write_tones(tmp_path / "in" / "train", n_each=3)
    for part in ("train", "test"):
        for i in range(2):
            write_wave(
                tmp_path / "in" / part / "noise" / f"{i}.wav", rustle(1.5, seed=10 * len(part) + i)
            )
    for label in ("high", "low"):
        (tmp_path / "in" / "test" / label).mkdir()
        (data / label / "0.wav").rename(tmp_path / "in" / "test" / label / "0.wav")
        (tmp_path / "in" / "test" / label / "0.wav").write_bytes(b"no audio")
    with pytest.raises(DataError, match=r"test part holds nothing of the classes \(noise is taken"):
        train(tmp_path / "in", out=tmp_path / "run", **QUICK)


def test_a_fold_of_noise_alone_is_no_error(tmp_path):
    data = write_tones(tmp_path / "in", n_each=4)
    rows = [f"{x}/{i}.wav,{x},{1 + i % 2}" for x in ("high", "low") for i in range(4)]
    for i in range(2):
        write_wave(data / "noise" / f"{i}.wav", rustle(1.5, seed=i))
        rows.append(f"noise/{i}.wav,noise,3")
    (data / "metadata.csv").write_text("\n".join(["file_name,label,fold", *rows]))
    metrics = crossval(data, seeds=1, **QUICK)
    assert [fold["clips"]["n"] for fold in metrics["folds"]] == [4, 4, 0]
    assert metrics["acceptance"]["foreign"]["n"] == 2
