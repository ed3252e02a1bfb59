"""Events marked in Audacity and Raven, in files as these programs write them."""

import pytest

from recordings import write_table, write_wav
from stapes.auditing import audit
from stapes.dataset import load_dataset
from stapes.errors import DataError

RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"


def events(dataset):
    return [(c.name, c.label, c.start_seconds, c.end_seconds) for c in dataset.clips]


@pytest.fixture
def pond(tmp_path):
    """Three recordings, one of them with labels of Audacity's, one of Raven's, one with none."""
    for name in ("pond.wav", "night.flac.wav", "quiet.wav"):
        write_wav(tmp_path / name, seconds=2)
    write_table(
        tmp_path / "pond.txt",
        "0.250000\t0.750000\tfrog",
        "\\\t1200.000000\t3400.000000",
        "1.000000\t1.500000\ttree frog",
    )
    write_table(
        tmp_path / "night.flac.Table.1.selections.txt",
        f"{RAVEN}\tAnnotation",
        "1\tWaveform 1\t1\t0.100000000\t0.600000000\t0.000\t8000.000\tcricket",
        "1\tSpectrogram 1\t1\t0.100000000\t0.600000000\t0.000\t8000.000\tcricket",
        "2\tSpectrogram 1\t1\t1.2\t1.9\t500.000\t3000.000\tfrog",
    )
    return tmp_path


def test_tables_beside_the_recordings_give_their_events(pond):
    write_table(pond / "readme.txt", "Recorded at the pond.", "", "0.1\t0.2\tnot a label")
    dataset = load_dataset(pond)
    assert events(dataset) == [
        ("night.flac.wav", "cricket", 0.1, 0.6),
        ("night.flac.wav", "frog", 1.2, 1.9),
        ("pond.wav", "frog", 0.25, 0.75),
        ("pond.wav", "tree frog", 1.0, 1.5),
    ]
    assert {clip.source for clip in dataset.clips} == {"night.flac.wav", "pond.wav"}
    assert dataset.warnings == (f"{pond}: 1 files without labels (quiet.wav): they are left out",)
    assert audit(pond)["n_sources"] == 2


def test_one_table_may_be_given_by_itself(pond):
    assert events(load_dataset(pond / "pond.txt")) == events(load_dataset(pond))[2:]


def test_a_selection_table_of_several_files_goes_by_the_offset_within_each(pond):
    (pond / "pond.txt").unlink()
    (pond / "night.flac.Table.1.selections.txt").unlink()
    rows = [
        f"{RAVEN}\tBegin File\tFile Offset (s)\tSpecies",
        "1\tSpectrogram 1\t1\t0.5\t0.9\t0\t8000\tpond.wav\t0.5\tfrog",
        "2\tSpectrogram 1\t1\t3.1\t3.6\t0\t8000\tnight.flac.wav\t1.1\tcricket",
    ]
    write_table(pond / "all.txt", *rows)
    assert events(load_dataset(pond)) == [
        ("night.flac.wav", "cricket", 1.1, 1.6),
        ("pond.wav", "frog", 0.5, 0.9),
    ]
    paths = [
        row.replace("Begin File", "Begin Path").replace("night", r"D:\calls\night") for row in rows
    ]
    write_table(pond / "all.txt", *paths)
    assert len(load_dataset(pond).clips) == 2
    write_table(pond / "all.txt", *(row.replace("File Offset (s)", "Offset") for row in rows))
    with pytest.raises(DataError, match=r"all\.txt:1: .* without the column File Offset \(s\)"):
        load_dataset(pond)


def test_labels_in_class_folders_are_those_of_the_folders(tmp_path):
    for label in ("frog", "toad"):
        write_wav(tmp_path / label / "0.wav", seconds=1)
    write_table(tmp_path / "frog" / "0.txt", "0.1\t0.2\ttoad")
    assert [clip.title for clip in load_dataset(tmp_path).clips] == ["frog/0.wav", "toad/0.wav"]


@pytest.mark.parametrize(
    ("name", "lines", "told"),
    [
        ("pond.txt", ["0.1\t0.5\tfrog", "0.7\t0.7\tfrog"], "pond.txt:2: a point"),
        ("pond.txt", ["0.1\t0.5\tfrog", "0.7 0.9 frog"], "pond.txt:2: not a label of Audacity's"),
        ("pond.txt", ["0.1\t0.5\tfrog", "", "0.6\t0.8"], "pond.txt:3: label is empty"),
        ("pond.txt", ["0.5\t0.1\tfrog"], "pond.txt:1: end_seconds is 0.1"),
        ("pond.txt", ["0.5\t9\tfrog"], r"pond.txt:1: .*reaches to 9 s.*ends at 2\.000 s"),
        ("pond.txt", ["0.1\t0.5\tfrog", "0.1\t0.5\ttoad"], "pond.txt:2: .*another label than in "),
        ("lake.txt", [RAVEN + "\tAnnotation", "1\tS\t1\t0\t1\t0\t9\tfrog"], "no recording beside"),
        ("pond.txt", [RAVEN, "1\tS\t1\t0\t1\t0\t9"], "no column of labels .*call it Annotation"),
        ("pond.txt", [RAVEN + "\tLabel", "1\tS\t1\t0\t1\t0\t9\t "], "pond.txt:2: label is empty"),
        ("pond.txt", [RAVEN + "\tLabel", "1\tS\t1\tx\t1\t0\t9\tfrog"], "pond.txt:2: start_seconds"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, name, lines, told):
    write_wav(tmp_path / "pond.wav", seconds=2)
    write_table(tmp_path / name, *lines)
    with pytest.raises(DataError, match=told):
        load_dataset(tmp_path)


def test_a_table_of_two_recordings_of_one_name_is_refused(tmp_path):
    write_wav(tmp_path / "pond.wav", seconds=2)
    write_wav(tmp_path / "pond.aif.wav", seconds=2).rename(tmp_path / "pond.flac")
    write_table(tmp_path / "pond.txt", "0.1\t0.5\tfrog")
    with pytest.raises(DataError, match=r"several recordings .*\(pond.flac, pond.wav\)"):
        load_dataset(tmp_path)
