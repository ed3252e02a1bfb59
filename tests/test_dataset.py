import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from recordings import RATE, write_classes, write_table, write_wav
from stapes.clips import Clip
from stapes.dataset import decode, load_dataset
from stapes.errors import DataError
from stapes.splits import given_split


def labels(dataset) -> dict[str, str]:
    return {clip.name: clip.label for clip in dataset.clips}


def names(dataset) -> list[str]:
    return [clip.name for clip in dataset.clips]


def parts(dataset) -> dict[str, str | None]:
    return {clip.name: clip.part for clip in dataset.clips}


# Class folders


def test_class_folders(tmp_path):
    write_classes(tmp_path, classes=("dog", "cat"))
    write_wav(tmp_path / "dog" / "garden" / "deep" / "2.wav")
    dataset = load_dataset(str(tmp_path))
    assert names(dataset) == [
        "cat/0.wav",
        "cat/1.wav",
        "dog/0.wav",
        "dog/1.wav",
        "dog/garden/deep/2.wav",
    ]
    assert dataset.classes == ("cat", "dog")
    assert dataset.clips[-1] == Clip(
        tmp_path / "dog/garden/deep/2.wav", "dog/garden/deep/2.wav", "dog", "dog/garden/deep/2.wav"
    )
    assert dataset.n_sources == 5 and dataset.root == tmp_path
    assert (dataset.skipped, dataset.warnings, dict(dataset.ignored)) == ((), (), {})


def test_the_order_is_that_of_bytes_whatever_the_disk_says(tmp_path, monkeypatch):
    for name in ("10", "9", "Z", "a", "é", "😀"):
        write_wav(tmp_path / "cat" / f"{name}.wav")
    found = names(load_dataset(tmp_path))
    assert found == [f"cat/{name}.wav" for name in ("10", "9", "Z", "a", "é", "😀")]

    class Backwards:
        def __init__(self, folder) -> None:
            with scandir(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", Backwards)
    assert names(load_dataset(tmp_path)) == found


def test_sources_are_never_guessed_from_names(tmp_path):
    same_night = ["20240101_000000_A.wav", "20240101_000000_B.wav", "20240101_000005_A.wav"]
    for name in [*same_night, "99999999_999999.wav", "2024-02-30T25-61.wav"]:
        write_wav(tmp_path / "bat" / name)
    dataset = load_dataset(tmp_path)
    assert dataset.n_sources == 5 and all(clip.source == clip.name for clip in dataset.clips)


def test_train_and_test_folders(tmp_path):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "valid", n_each=1)
    write_classes(tmp_path / "test", n_each=1)
    dataset = load_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert parts(dataset)["valid/dog/0.wav"] == "train"
    rest, held = given_split(dataset.clips)
    assert [names(dataset)[i] for i in held] == ["test/cat/0.wav", "test/dog/0.wav"]
    assert len(rest) == 6


def test_train_and_test_folders_with_other_classes(tmp_path):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "test", classes=("cat", "dogs"))
    with pytest.raises(DataError, match="no class folder in train for dogs"):
        load_dataset(tmp_path)


# The Kaggle set as it is downloaded

FLAT = ("cat_1", "cat_2", "cat_3", "dog_barking_0", "dog_barking_1", "dog_barking_2")


def kaggle_flat(folder: Path) -> None:
    for name in FLAT:
        write_wav(folder / f"{name}.wav", content=name)


def kaggle_table(path: Path, *rows: str) -> Path:
    default = (
        "0,cat_3.wav,dog_barking_2.wav,cat_1.wav,dog_barking_0.wav",
        "1,,,cat_2.wav,dog_barking_1.wav",
    )
    return write_table(path, ",test_cat,test_dog,train_cat,train_dog", *(rows or default))


def kaggle_folders(root: Path) -> None:
    for name in FLAT:
        held, cat = name in ("cat_3", "dog_barking_2"), name.startswith("cat")
        folder = ("test/cats" if cat else "test/test") if held else f"train/{name[:3]}"
        write_wav(root / folder / f"{name}.wav", content=name)


@pytest.mark.parametrize("table", ["train_test_split.csv", "cats_dogs/train_test_split.csv"])
def test_kaggle_flat_with_its_table(tmp_path, table):
    kaggle_flat(tmp_path / "cats_dogs")
    kaggle_table(tmp_path / table)
    dataset = load_dataset(tmp_path)
    assert labels(dataset) == {
        f"cats_dogs/{name}.wav": "cat" if name.startswith("cat") else "dog" for name in FLAT
    }
    rest, held = given_split(dataset.clips)
    assert [names(dataset)[i] for i in held] == [
        "cats_dogs/cat_3.wav",
        "cats_dogs/dog_barking_2.wav",
    ]
    assert len(rest) == 4 and dataset.warnings == ()
    inside = load_dataset(tmp_path / "cats_dogs")
    assert list(parts(inside).values()) == list(parts(dataset).values())


def test_kaggle_flat_without_its_table(tmp_path):
    kaggle_flat(tmp_path)
    dataset = load_dataset(tmp_path)
    assert list(labels(dataset).values()) == ["cat"] * 3 + ["dog"] * 3
    assert given_split(dataset.clips) is None


def test_kaggle_folders(tmp_path):
    kaggle_folders(tmp_path / "cats_dogs")
    dataset = load_dataset(tmp_path)
    assert labels(dataset)["cats_dogs/test/test/dog_barking_2.wav"] == "dog"
    assert labels(dataset)["cats_dogs/test/cats/cat_3.wav"] == "cat"
    assert dataset.classes == ("cat", "dog")
    rest, held = given_split(dataset.clips)
    assert (len(rest), len(held)) == (4, 2)
    assert list(labels(load_dataset(tmp_path / "cats_dogs")).values()) == list(
        labels(dataset).values()
    )


def test_kaggle_download_with_both_forms_counts_no_file_twice(tmp_path):
    kaggle_flat(tmp_path / "cats_dogs")
    kaggle_folders(tmp_path / "cats_dogs")
    kaggle_table(tmp_path / "train_test_split.csv")
    (tmp_path / "utils.py").write_text("")
    dataset = load_dataset(tmp_path)
    assert len(dataset.clips) == dataset.n_sources == 6
    assert dataset.ignored["second copies of the set"] == 6
    assert dataset.warnings == () and given_split(dataset.clips) is not None


def test_kaggle_table_that_names_too_little(tmp_path):
    kaggle_flat(tmp_path)
    kaggle_table(tmp_path / "train_test_split.csv", "0,cat_3.wav,,cat_1.wav,dog_barking_0.wav")
    dataset = load_dataset(tmp_path)
    assert list(labels(dataset).values()) == ["cat"] * 3 + ["dog"] * 3
    assert "does not name 3 recordings (cat_2.wav" in dataset.warnings[0]


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (
            ("0,cat_9.wav,,cat_1.wav,dog_barking_0.wav",),
            r"1 labels for missing files \(cat_9.wav\)",
        ),
        (("0,,,cat_1.wav,dog_barking_0.wav", "1,,,,cat_1.wav"), r":3: cat_1.wav is named as dog"),
    ],
    ids=["missing file", "two labels"],
)
def test_kaggle_table_that_contradicts(tmp_path, rows, match):
    kaggle_flat(tmp_path)
    kaggle_table(tmp_path / "train_test_split.csv", *rows)
    with pytest.raises(DataError, match=match):
        load_dataset(tmp_path)


def test_kaggle_table_with_a_file_in_both_parts(tmp_path):
    kaggle_flat(tmp_path)
    kaggle_table(tmp_path / "train_test_split.csv", "0,cat_1.wav,,cat_1.wav,dog_barking_0.wav")
    dataset = load_dataset(tmp_path)
    assert "THE SAME AUDIO IS IN TRAIN AND TEST" in dataset.warnings[0]
    assert parts(dataset)["cat_1.wav"] == "train"


# Copies


def test_copies_become_one_source_with_a_warning(tmp_path):
    write_classes(tmp_path, n_each=3)
    shutil.copy(tmp_path / "cat" / "0.wav", tmp_path / "cat" / "again.wav")
    dataset = load_dataset(tmp_path)
    sources = {clip.name: clip.source for clip in dataset.clips}
    assert sources["cat/again.wav"] == sources["cat/0.wav"]
    assert dataset.n_sources == 6
    assert dataset.warnings == (
        "2 clips are copies of one another and now count as 1 source(s): cat/0.wav = cat/again.wav",
    )


def test_copies_join_the_sources_they_were_given(tmp_path):
    write_classes(tmp_path, n_each=2)
    shutil.copy(tmp_path / "cat" / "0.wav", tmp_path / "cat" / "1.wav")
    rows = ["cat/0.wav,cat,r1", "cat/1.wav,cat,r2", "dog/0.wav,dog,r2", "dog/1.wav,dog,r3"]
    write_table(tmp_path / "metadata.csv", "file_name,label,source", *rows)
    dataset = load_dataset(tmp_path)
    assert [clip.source for clip in dataset.clips] == ["r1", "r1", "r1", "r3"]


def test_copies_that_share_a_source_already_are_no_news(tmp_path):
    write_classes(tmp_path, n_each=1)
    shutil.copy(tmp_path / "cat" / "0.wav", tmp_path / "cat" / "1.wav")
    rows = ["cat/0.wav,cat,r1", "cat/1.wav,cat,r1", "dog/0.wav,dog,r3"]
    write_table(tmp_path / "metadata.csv", "file_name,label,source", *rows)
    assert load_dataset(tmp_path).warnings == ()


def test_the_same_samples_in_another_format_are_found_when_decoding(tmp_path):
    write_classes(tmp_path)
    samples, rate = soundfile.read(tmp_path / "cat" / "0.wav", dtype="int16")
    soundfile.write(tmp_path / "cat" / "0.flac", samples, rate)
    dataset = load_dataset(tmp_path)
    assert dataset.n_sources == 5
    decoded = decode(dataset, sample_rate=RATE)
    assert [clip.source for clip in decoded.clips][:2] == ["cat/0.flac", "cat/0.flac"]
    assert "cat/0.flac = cat/0.wav" in decoded.warnings[0]


# Decoding


def test_decode_gives_the_samples_in_order(tmp_path):
    write_classes(tmp_path, n_each=5)
    told = []
    decoded = decode(
        load_dataset(tmp_path), sample_rate=RATE, progress=lambda *what: told.append(what)
    )
    assert told == [("reading", i, 10, "") for i in range(1, 11)]
    assert decoded.sample_rate == RATE and decoded.skipped == decoded.warnings == ()
    for clip, waveform in zip(decoded.clips, decoded.waveforms, strict=True):
        expected, _ = soundfile.read(clip.path, dtype="float32")
        assert waveform.dtype == np.float32
        np.testing.assert_array_equal(waveform, expected)
    clips, waveforms = decoded.pick([7, 2])
    assert [clip.name for clip in clips] == ["dog/2.wav", "cat/2.wav"]
    assert waveforms[1] is decoded.waveforms[2]


def test_decode_resamples(tmp_path):
    write_classes(tmp_path)
    decoded = decode(load_dataset(tmp_path), sample_rate=RATE // 2)
    assert [len(waveform) for waveform in decoded.waveforms] == [1_600] * 4


def test_decode_cuts_events(tmp_path):
    write_wav(tmp_path / "a.wav", seconds=1.0)
    rows = ["a.wav,cat,0.25,0.5", "a.wav,dog,0.5,", "a.wav,cat,,0.125"]
    write_table(tmp_path / "metadata.csv", "file_name,label,start_seconds,end_seconds", *rows)
    decoded = decode(load_dataset(tmp_path), sample_rate=RATE)
    whole, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    for waveform, (first, last) in zip(
        decoded.waveforms, [(0, 2_000), (4_000, 8_000), (8_000, 16_000)], strict=True
    ):
        np.testing.assert_array_equal(waveform, whole[first:last])


def test_the_rate_of_each_file_is_kept(tmp_path):
    write_classes(tmp_path, n_each=1)
    slow = tmp_path / "cat" / "1.wav"
    soundfile.write(slow, np.random.default_rng(0).uniform(-0.5, 0.5, 8_000), 8_000)
    decoded = decode(load_dataset(tmp_path), sample_rate=RATE)
    assert [clip.name for clip in decoded.clips] == ["cat/0.wav", "cat/1.wav", "dog/0.wav"]
    assert decoded.file_sample_rates == (RATE, 8_000, RATE)


def test_decode_for_evaluation_needs_one_class_only(tmp_path):
    dataset = load_dataset(write_classes(tmp_path, classes=("cat",)))
    assert len(decode(dataset, sample_rate=RATE, training=False).clips) == 2
    with pytest.raises(DataError, match="only one class, cat"):
        decode(dataset, sample_rate=RATE)


# Real recordings


@pytest.mark.parametrize(
    ("name", "n_clips", "n_sources", "n_classes"),
    [("cats_dogs", 280, 249, 2), ("esc10", 400, 304, 10)],
)
def test_real_sets(data_folder, name, n_clips, n_sources, n_classes):
    dataset = load_dataset(data_folder / name)
    assert len(dataset.clips) == n_clips
    assert dataset.n_sources == n_sources
    assert len(dataset.classes) == n_classes
    assert {clip.fold for clip in dataset.clips} == {1, 2, 3, 4, 5}
    assert dataset.skipped == dataset.warnings == ()
