"""Options, outputs and models that cannot be used: one line each, before any work."""

import os
import pickle
import re

import pytest

from stapes import checkpoint, runs
from stapes.config import MOST, ModelConfig, TrainingConfig
from stapes.errors import UsageError

TRAIN = "train {tones} --out {new}"

USAGE = [
    # Unknown names: the nearest one is named.
    ("trian {tones} --out {new}", "'train'"),
    ("train {tones} --out {new} --epoch 3", "--epochs"),
    ("train {tones} --out {new} --learnign-rate 3", "--learning-rate"),
    ("crossval {tones} --sede 3", "--seeds"),
    ("predict {run} {clip} --segment", "--segments"),
    ("evaluate {run} {tones} --jsn x", "--json"),
    (f"{TRAIN} --preset clasic", "classic"),
    # What is missing or too much.
    ("train {tones}", "--out"),
    ("train", "DATA"),
    ("predict {run}", "PATH"),
    ("evaluate {run}", "DATA"),
    ("evaluate {run} {tones} extra", "extra"),
    # Wrong types and values out of range: the range is named.
    (f"{TRAIN} --epochs many", "--epochs.*integer"),
    (f"{TRAIN} --epochs 1.5", "--epochs.*integer"),
    (f"{TRAIN} --epochs 0", "epochs is 0: give a whole number from 1 to 100000"),
    (f"{TRAIN} --batch-size 1", "batch_size is 1: give a whole number from 2 to 4096"),
    (f"{TRAIN} --batch-size 1000000000", "batch_size is 1000000000: .* to 4096"),
    (f"{TRAIN} --learning-rate fast", "--learning-rate.*number"),
    (f"{TRAIN} --learning-rate -0.1", r"learning_rate is -0\.1: give a number from 1e-07 to 1"),
    (f"{TRAIN} --learning-rate 0", r"learning_rate is 0\.0: .* from 1e-07 to 1"),
    (f"{TRAIN} --learning-rate nan", "learning_rate is nan: .* from 1e-07 to 1"),
    (f"{TRAIN} --learning-rate inf", "learning_rate is inf: .* from 1e-07 to 1"),
    (f"{TRAIN} --patience -1", "patience is -1: .* from 0 to 100000"),
    (f"{TRAIN} --seed -1", "seed is -1: give a whole number from 0 to 4294967295"),
    (f"{TRAIN} --seed 4294967296", "seed is 4294967296: .* from 0 to 4294967295"),
    (f"{TRAIN} --seed {10**30}", f"seed is {10**30}: .* from 0 to 4294967295"),
    (f"{TRAIN} --threads 0", "threads is 0: give a whole number from 1 to 256"),
    (f"{TRAIN} --threads 9999999999", "threads is 9999999999: give a whole number from 1 to 256"),
    (f"{TRAIN} --device tpu", "device is 'tpu': give 'cpu' or 'cuda'"),
    ("crossval {tones} --seeds 0", "seeds is 0: give a whole number from 1 to 10000"),
    ("reproduce {tones} --seeds 0", "seeds is 0: give a whole number from 1 to 10000"),
    ("reproduce {tones} --epochs 0", "epochs is 0: .* from 1"),
    ("predict {run} {clip} --hop often", "--hop is 'often': give seconds.*'dense'"),
    ("predict {run} {clip} --hop 0", "hop is 0.0 seconds: .* above 0, at most 1"),
    ("predict {run} {clip} --hop nan", "hop is nan seconds: .* above 0, at most 1"),
    ("predict {run} {clip} --vote loudest", "'mean', 'majority'|mean.*majority"),
    ("predict {run} {clip} --format xml", "table.*csv.*jsonl"),
    (f"{TRAIN} --device cuda", "--device is cuda, .*: give --device cpu"),
    # Output that is what is read, or lies inside it.
    ("train {tones} --out {tones}", "is .*, which is read"),
    ("train {tones} --out {tones}/deep/run", "lies inside .*, which is read"),
    ("predict {run} {tones} --out {tones}/answers.csv", "lies inside .*, which is read"),
    ("predict {run} {clip} --out {clip} --overwrite", "is .*, which is read"),
    ("evaluate {run} {table} --json {table}", "is .*, which is read"),
    ("evaluate {run} {tones} --json {run}/model.safetensors", "is .*, which is read"),
    ("evaluate cats-dogs {tones} --against {run} --json {run}/model.safetensors", "which is read"),
    ("predict {run} {clip} --out {run}/model.safetensors --overwrite", "is .*, which is read"),
    ("crossval {tones} --labels {table} --json {table}", "is .*, which is read"),
    ("audit {tones} --out {new} --json {new}", "--out and --json are both .*: give two files"),
    ("crossval {tones} --json {tones}/x.json", "lies inside .*, which is read"),
    ("demo {tones} --out {tones}/demo", "lies inside .*, which is read"),
    # Output that exists.
    ("train {tones} --out {run}", "already holds .*--resume.*--overwrite"),
    ("train {tones} --out {run} --resume --overwrite", "contradict"),
    ("predict {run} {clip} --out {old}", "exists: .*--overwrite"),
    ("explain {run} {clip} --out {drawn}", "already holds layers.png: give another --out or"),
    ("predict {run} {clip} --out {folder}", "is a folder"),
    ("predict {run} {clip} --out /dev/null --overwrite", "exists: give the name of a file"),
    ("evaluate {run} {tones} --json {folder}", "is a folder"),
    ("evaluate {run} {tones} --json /dev/null", "exists: give the name of a file"),
    ("evaluate {run} {tones} --json /dev/answers", "no place for a file"),
    ("audit {table} --json {old}", "old exists and is no JSON: give another name"),
    ("audit {table} --json {clip}", "clip.wav is a recording: give another name"),
    ("audit {table} --out {table} --overwrite", "table.csv is .*table.csv, which is read"),
    ("audit {table} --out {clip} --overwrite", "clip.wav is a recording: give another name"),
    ("demo --seed -1 --out {new}", "seed is -1: give a whole number from 0"),
    # Paths that are not there.
    ("evaluate {run} {tones} --foreign {missing}", "missing: no such folder"),
    ("predict {run} {missing}", "missing: no such file or folder"),
    ("predict {run} {clip} {missing}", "missing: no such file or folder"),
]

FAILED = [
    ("predict {run}/state.safetensors {clip}", "the state of a training: give its model"),
    ("train {missing} --out {new}", "missing"),
    ("evaluate {run} {missing}", "missing"),
    ("crossval {empty}", "no recordings"),
    ("predict {run} {empty}", "no recordings in .*empty"),
    ("predict {missing} {clip}", "no such model; .*cats-dogs"),
    ("explain {run} {missing} --out {new}", "missing"),
    ("evaluate {run} {other}", "'cat' is not a class of the model"),
    ("evaluate {run} {tones} --json {missing}/x.json", "folder is missing"),
    ("predict {run} {clip} --out {missing}/x.csv", "folder is missing"),
    ("train {tones} --out /proc/nowhere/run", "cannot be written"),
    ("train {tones} --out {old}", "cannot be written"),
    ("predict {run} {long}", "too long"),
    # Model files.
    ("predict {cut} {clip}", "cut: damaged"),
    ("predict {flipped} {clip}", "flipped: damaged"),
    ("predict {pickled} {clip}", "pickled: a pickle"),
    ("predict {hundred_megabytes} {clip}", "hundred_megabytes: not a model file"),
    ("predict {newer} {clip}", "newer: format 99 is newer than 1.*upgrade"),
    ("evaluate {clip} {tones}", "not a model file"),
    ("predict /dev/zero {clip}", "/dev/zero: not a file"),
]


@pytest.fixture
def places(tmp_path, run_folder, tones_folder):
    """What the tables call the files and folders; all but the shared ones are new."""
    model = (run_folder / "model.safetensors").read_bytes()
    tensors, metadata = checkpoint.unpack(model, name="model")
    metadata.pop("checksum")
    contents = {
        "old": b"old",
        "cut": model[:-1],
        "flipped": bytes([*model[:-1], model[-1] ^ 1]),
        "pickled": pickle.dumps("model"),
        "hundred_megabytes": (100_000_000).to_bytes(8, "little") + b"{",
        "newer": checkpoint.pack(tensors, metadata | {"format_version": 99}),
        "table": f"file_name,label\n{tones_folder}/low/0.wav,low\n".encode(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in ("folder", "empty", "other/cat", "drawn"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "drawn" / "layers.png").write_bytes(b"mine")
    clip = tmp_path / "clip.wav"
    clip.write_bytes((tones_folder / "low" / "0.wav").read_bytes())
    (tmp_path / "other" / "cat" / "0.wav").write_bytes(clip.read_bytes())
    names = [*contents, "folder", "empty", "other", "drawn", "new", "missing"]
    shared = {"tones": tones_folder, "run": run_folder, "clip": clip, "long": "x" * 300}
    (tmp_path / "table").rename(tmp_path / "table.csv")
    return {name: tmp_path / name for name in names} | shared | {"table": tmp_path / "table.csv"}


def snapshot(*folders) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [(command, 2, told) for command, told in USAGE]
    + [(command, 4, told) for command, told in FAILED],
)
def test_one_line_says_what_is_wrong_and_nothing_is_touched(
    stapes, places, monkeypatch, command, code, told
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = snapshot(places["old"].parent, places["tones"], places["run"])
    ended = stapes(*(word.format(**places) for word in command.split(" ")))
    assert ended.code == code
    assert re.search(told, ended.error), ended.error
    assert snapshot(places["old"].parent, places["tones"], places["run"]) == before


@pytest.mark.parametrize("name", ["newer", "cut", "hundred_megabytes"])
def test_a_damaged_model_in_a_run_folder_is_named(stapes, places, name):
    places["new"].mkdir()
    places[name].rename(places["new"] / "model.safetensors")
    ended = stapes("predict", places["new"], places["clip"])
    assert ended.code == 4
    assert "model.safetensors" in ended.error


def test_a_second_run_in_one_folder_is_told_the_first_ones_pid(stapes, places):
    with runs.run_folder(places["new"], resume=False, overwrite=False):
        ended = stapes("train", places["tones"], "--out", places["new"])
    assert ended.code == 4
    assert f"process {os.getpid()} is training there" in ended.error


@pytest.mark.parametrize(
    "field", ["seed", "epochs", "batch_size", "learning_rate", "speed", "validation_share"]
)
@pytest.mark.parametrize("value", ["3", None, True, float("nan"), -1, 1e300, [1]])
def test_every_setting_of_a_training_has_a_range(field, value):
    with pytest.raises(UsageError, match=rf"{field} is .*: give a (whole )?number from .* to"):
        TrainingConfig(**{field: value})


def test_switches_are_true_or_false():
    with pytest.raises(UsageError, match="polarity is 'no': give True or False"):
        TrainingConfig(polarity="no")


def test_the_loudest_noise_is_not_below_the_quietest():
    with pytest.raises(UsageError, match=r"noise_db is -60\.0: give a number from -50\.0 to"):
        TrainingConfig(noise_db=-60.0)


@pytest.mark.parametrize("field", ["n_layers", "n_filters", "kernel_size", "stride", "gate"])
@pytest.mark.parametrize("value", ["3", None, True, float("inf"), -1, 10**9])
def test_every_number_of_a_network_has_a_range(field, value):
    with pytest.raises(UsageError, match=rf"{field} is .*: give a (whole )?number from .* to"):
        ModelConfig(("a", "b"), **{field: value})


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        ({"n_filters": 256, "kernel_size": 255}, "n_parameters"),
        ({"n_filters": 256, "stride": 1, "segment_length": 100_000}, "n_multiply_adds"),
        ({"segment_length": 10_000_000}, "n_values"),
    ],
)
def test_a_network_may_not_take_more_than_there_is(sizes, name):
    with pytest.raises(UsageError, match=f"{name} of the network is .*: it must be at most"):
        ModelConfig(("a", "b"), **sizes)


def test_the_largest_networks_can_be_saved():
    with_statistics = 2 * MOST["n_parameters"]
    assert 4 * with_statistics <= checkpoint.MAX_BYTES


@pytest.mark.parametrize("classes", [(), ("a",), ("a", "a")])
def test_a_network_needs_two_distinct_classes(classes):
    with pytest.raises(UsageError, match="at least two distinct"):
        ModelConfig(classes)
