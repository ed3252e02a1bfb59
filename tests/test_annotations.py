"""Clips of a table of labels: its columns, its files, and what it leaves out."""

import pytest

from recordings import write_classes, write_table, write_wav
from stapes.clips import Clip
from stapes.dataset import load_dataset
from stapes.tables import quoted


def names(dataset) -> list[str]:
    return [clip.name for clip in dataset.clips]


def test_a_table_with_every_column(tmp_path):
    write_classes(tmp_path, n_each=1)
    write_table(
        tmp_path / "metadata.csv",
        "file_name,label,source,fold,start_seconds,end_seconds,comment",
        "dog/0.wav,bark,night,2,0.1,0.2,loud",
        "dog/0.wav,growl,night,2,0,0.1,",
        "cat/0.wav,bark,,1,,,",
    )
    dataset = load_dataset(tmp_path)
    assert dataset.clips == (
        Clip(tmp_path / "cat/0.wav", "cat/0.wav", "bark", "cat/0.wav", fold=1),
        Clip(tmp_path / "dog/0.wav", "dog/0.wav", "growl", "night", 2, None, 0.0, 0.1),
        Clip(tmp_path / "dog/0.wav", "dog/0.wav", "bark", "night", 2, None, 0.1, 0.2),
    )
    assert load_dataset(tmp_path / "metadata.csv") == dataset


@pytest.mark.parametrize(("column", "told"), [("split", 1), ("Subset", 1), ("comment", 0)])
def test_a_column_of_parts_that_is_not_read_is_told(tmp_path, column, told):
    write_classes(tmp_path, n_each=1)
    rows = "dog/0.wav,dog,train", "cat/0.wav,cat,test"
    write_table(tmp_path / "metadata.csv", f"file_name,label,{column}", *rows)
    warnings = load_dataset(tmp_path).warnings
    assert len(warnings) == told
    assert all(f"column {column.lower()} is not read: give a column fold" in w for w in warnings)


def test_what_a_selection_does_not_name_is_not_skipped(tmp_path):
    write_classes(tmp_path, n_each=1)
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    rows = ["dog/0.wav,dog", "cat/0.wav,cat"]
    write_table(tmp_path / "selection.csv", "file_name,label", *rows)
    assert load_dataset(tmp_path / "selection.csv").skipped == ()
    write_table(tmp_path / "metadata.csv", "file_name,label", *rows)
    assert [skip.name for skip in load_dataset(tmp_path).skipped] == ["loop.wav"]


def test_events_that_overlap_are_one_source_whatever_the_table_says(tmp_path):
    write_wav(tmp_path / "day.wav", seconds=1.0)
    write_wav(tmp_path / "night.wav", seconds=1.0)
    times = [("day", 0, 0.5), ("day", 0.1, 0.2), ("day", 0.4, 0.6), ("day", 0.6, 0.8)]
    times += [("night", 0.5, 0.7), ("night", 0.7, "")]
    rows = [f"{name}.wav,a,event {i},{start},{end}" for i, (name, start, end) in enumerate(times)]
    write_table(tmp_path / "events.csv", "file_name,label,source,start_seconds,end_seconds", *rows)
    dataset = load_dataset(tmp_path / "events.csv")
    found = [clip.source.removeprefix("event ") for clip in dataset.clips]
    assert found == ["0", "0", "0", "3", "4", "5"]
    assert [w.split(": ", 1)[1] for w in dataset.warnings] == [
        "events of different sources overlap in day.wav: they share audio, and count as one source"
    ]


def test_events_of_one_file_are_one_source(tmp_path):
    write_wav(tmp_path / "night.wav", seconds=1.0)
    rows = [f"night.wav,{label},{i / 10},{(i + 1) / 10}" for i, label in enumerate("abab")]
    write_table(tmp_path / "events.csv", "file_name,label,start_seconds,end_seconds", *rows)
    dataset = load_dataset(tmp_path / "events.csv")
    assert len(dataset.clips) == 4 and dataset.n_sources == 1 and dataset.warnings == ()


def test_the_line_by_which_excel_names_the_delimiter_is_no_header(tmp_path):
    write_classes(tmp_path)
    write_table(tmp_path / "t.csv", "sep=;", "file_name;label", "cat/0.wav;cat", "dog/0.wav;dog")
    assert names(load_dataset(tmp_path / "t.csv")) == ["cat/0.wav", "dog/0.wav"]


def test_a_table_of_files_elsewhere_does_not_search_the_folder_it_lies_in(tmp_path):
    for place in ("far", "near"):
        (tmp_path / place).mkdir()
        write_classes(tmp_path / place)
    paths = [str(tmp_path / "far" / name) for name in ("cat/0.wav", "dog/0.wav")]
    rows = "file_name,label", f"{paths[0]},cat", f"{paths[1]},dog"
    write_table(tmp_path / "near" / "t.csv", *rows)
    elsewhere = load_dataset(tmp_path / "near" / "t.csv")
    assert names(elsewhere) == ["../far/cat/0.wav", "../far/dog/0.wav"]
    assert elsewhere.warnings == ()
    write_table(tmp_path / "far" / "t.csv", *rows)
    assert "2 files without labels" in load_dataset(tmp_path / "far" / "t.csv").warnings[0]


def test_a_table_of_some_files_leaves_the_others_out_and_says_so(tmp_path):
    write_classes(tmp_path)
    write_table(tmp_path / "train.csv", "file_name,label", "cat/0.wav,cat", "dog/0.wav,dog")
    dataset = load_dataset(tmp_path / "train.csv")
    assert names(dataset) == ["cat/0.wav", "dog/0.wav"]
    assert "2 files without labels (cat/1.wav, dog/1.wav): they are left out" in dataset.warnings[0]


def test_an_event_is_within_what_is_there_and_not_within_what_the_header_says(tmp_path):
    write_classes(tmp_path, n_each=1)
    path = tmp_path / "dog/0.wav"
    content = path.read_bytes()
    path.write_bytes(content[:40] + bytes(4) + content[44:])  # as a recorder leaves it
    write_table(tmp_path / "some.csv", "file_name,label,start_seconds,end_seconds",
                "dog/0.wav,bark,0.1,0.2")  # fmt: skip
    assert names(load_dataset(tmp_path / "some.csv")) == ["dog/0.wav"]


def test_names_that_other_programs_wrote(tmp_path):
    write_wav(tmp_path / "cat" / "cafe\u0301.wav")  # as macOS writes it
    write_wav(tmp_path / "dog" / "1.wav")
    write_table(
        tmp_path / "metadata.csv", "file_name,label", "cat/caf\u00e9.wav,cat", "dog\\1.wav,dog"
    )
    assert names(load_dataset(tmp_path)) == ["cat/cafe\u0301.wav", "dog/1.wav"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd", "'+cmd"),
        ("-2", "'-2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("cat/=1.wav", "cat/=1.wav"),
        ("", ""),
    ],
)
def test_quoted(text, shown):
    assert quoted(text) == shown
