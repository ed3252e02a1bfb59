import csv
import itertools
import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recordings import write_classes, write_table
from stapes.clips import Clip, Dataset
from stapes.corrections import apply_labels
from stapes.dataset import load_dataset
from stapes.errors import DataError
from stapes.tables import quoted, unquoted
from stapes.triage import (
    COLUMNS,
    Region,
    Suspicion,
    Timeline,
    rank,
    regions,
    write_audacity,
    write_csv,
)

CLASSES = ("cat", "dog")


def clip(name: str = "a.wav", label: str = "cat", **times) -> Clip:
    return Clip(Path(name), name, label, source=name, **times)


def dataset(*clips: Clip) -> Dataset:
    return Dataset(Path("."), clips)


def suspicion(of: Clip, suggested: str = "dog", **options) -> Suspicion:
    return Suspicion(of, suggested, 0.9, {"cat": 0.07, "dog": 0.93}, **options)


def labels(data: Dataset) -> dict[str, str]:
    return {c.name: c.label for c in data.clips}


def many(n: int = 100, *, swapped=(), seed: int = 0):
    """Clips of two classes, their targets, and answers that know the truth rather well."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 2
    targets = truth.copy()
    targets[list(swapped)] ^= 1
    right = rng.beta(8, 1, size=n)
    shares = np.where(np.arange(2) == truth[:, None], right[:, None], 1 - right[:, None])
    clips = [clip(f"{i}.wav", CLASSES[t]) for i, t in enumerate(targets)]
    return clips, targets, shares.astype(np.float32), truth


# Ranking


def test_swapped_labels_come_first():
    swapped = (3, 40, 77, 98)
    clips, targets, shares, truth = many(swapped=swapped)
    found = rank(clips, targets, shares, CLASSES)
    assert {s.clip.name for s in found[:4]} == {f"{i}.wav" for i in swapped}
    assert all(s.suggested == CLASSES[truth[int(s.clip.name[:-4])]] for s in found)
    disagreements = [s.disagreement for s in found]
    assert disagreements == sorted(disagreements, reverse=True)
    assert all(0.5 < d <= 1 for d in disagreements)
    assert len(found) < 10


def test_what_is_listed_is_what_gains_more_over_its_threshold_than_the_label():
    rng = np.random.default_rng(1)
    targets = rng.integers(3, size=60)
    shares = rng.dirichlet(np.ones(3), size=60)
    listed = {s.clip.name for s in rank([clip(str(i)) for i in range(60)], targets, shares, "abc")}
    thresholds = [np.mean([s[c] for s, t in zip(shares, targets, strict=True) if t == c])
                  for c in range(3)]  # fmt: skip
    for i, (share, target) in enumerate(zip(shares, targets, strict=True)):
        gains = share - thresholds
        other = max((c for c in range(3) if c != target), key=lambda c: gains[c])
        assert (str(i) in listed) == (gains[other] > gains[target])


def test_a_class_that_is_always_doubted_is_not_all_listed():
    # Half of the cats get 0.45 for cat: that is what cats get, not what is wrong with them.
    targets = np.array([0] * 20 + [1] * 20)
    cat = np.array([0.45] * 20 + [0.05] * 20)
    shares = np.stack([cat, 1 - cat], axis=1)
    assert rank([clip(str(i)) for i in range(40)], targets, shares, CLASSES) == []


def test_what_the_networks_agree_with_is_not_listed():
    # The first class is so sure elsewhere that 0.6 for it lies far below its threshold.
    targets = np.array([0] * 9 + [1] * 3)
    shares = np.array([[0.99, 0.01]] * 8 + [[0.6, 0.4]] + [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    clips = [Clip(Path(str(i)), str(i), "ab"[t], str(i)) for i, t in enumerate(targets)]
    listed = {s.clip.name for s in rank(clips, targets, shares.astype(np.float32), ("a", "b"))}
    assert "8" not in listed and "9" in listed


def test_perfect_answers_and_nothing_list_nothing():
    clips, targets, _, _ = many(6)
    assert rank(clips, targets, np.eye(2)[targets], CLASSES) == []
    assert rank([], np.zeros(0, np.int64), np.zeros((0, 2)), CLASSES) == []


def test_foreign_sounds_are_not_ranked_and_classes_without_clips_do_no_harm():
    targets = np.array([-1, 0, 0, 0])
    shares = np.array([[0.1, 0.8, 0.1], [0.9, 0.05, 0.05], [0.1, 0.9, 0.0], [0.9, 0.0, 0.1]])
    (found,) = rank([clip(n) for n in "abcd"], targets, shares, ("cat", "dog", "owl"))
    assert (found.clip.name, found.suggested) == ("c", "dog")


def test_rank_keeps_durations_and_gives_plain_values():
    clips, targets, shares, _ = many(swapped=(5,))
    (first, *_) = rank(clips, targets, shares, CLASSES, durations_seconds=range(100))
    values = first.as_dict()
    assert (values["name"], values["duration_seconds"]) == ("5.wav", 5)
    assert (values["label"], values["suggested"]) == ("cat", "dog")
    assert values["probabilities"] == pytest.approx({"cat": shares[5, 0], "dog": shares[5, 1]})
    assert (values["start_seconds"], values["end_seconds"]) == (0.0, None)


def test_rank_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="2 clips"):
        rank([clip(), clip()], np.zeros(1, np.int64), np.zeros((1, 2)), CLASSES)


# The table and back


def test_the_whole_loop_from_swapped_labels_to_mended_ones(tmp_path):
    write_classes(tmp_path / "data", n_each=10)
    wrong = {"cat/3.wav": "dog", "cat/7.wav": "dog", "dog/2.wav": "cat"}
    data = load_dataset(tmp_path / "data")
    given = replace(data, clips=tuple(replace(c, label=wrong.get(c.name, c.label))
                                      for c in data.clips))  # fmt: skip
    targets = np.array([CLASSES.index(c.label) for c in given.clips])
    heard = np.array([0.9 if c.name.startswith("cat") else 0.1 for c in given.clips])
    found = rank(given.clips, targets, np.stack([heard, 1 - heard], axis=1), CLASSES)
    assert {s.clip.name for s in found} == set(wrong)

    write_csv(tmp_path / "doubted.csv", found)
    assert labels(apply_labels(given, tmp_path / "doubted.csv")) == labels(given)
    with (tmp_path / "doubted.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["new_label"] = row["suggested"]
    with (tmp_path / "fixed.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=";")  # as spreadsheets save it here
        writer.writeheader()
        writer.writerows(rows)
    mended = apply_labels(given, tmp_path / "fixed.csv")
    assert mended.clips == data.clips
    (told,) = mended.warnings
    assert told.endswith(
        "3 labels changed: cat/3.wav (dog -> cat), cat/7.wav (dog -> cat), dog/2.wav (cat -> dog)"
    )


names = (
    st.binary(min_size=1, max_size=20)
    .map(os.fsdecode)
    .filter(lambda name: "\0" not in name and name.strip())
)
tricky = st.sampled_from(["=cmd", "'=cmd", "''=cmd", "-", "'", '"a;b,c\td', "a\r\nb", " cat "])
words = st.text(min_size=1, max_size=9).filter(lambda t: "\0" not in t and t.strip()) | tricky
words = words.filter(lambda text: text.encode("utf-8", "ignore").decode() == text)


@settings(max_examples=80)
@given(
    rows=st.lists(
        st.tuples(names | tricky, words), min_size=1, max_size=5, unique_by=lambda r: r[0]
    )
)
def test_any_name_and_label_survives_the_table(tmp_path_factory, rows):
    table = tmp_path_factory.mktemp("round") / "table.csv"
    data = dataset(*(clip(name, label) for name, label in rows))
    write_csv(table, [suspicion(c) for c in data.clips])
    assert apply_labels(data, table) == data
    other = dataset(*(replace(c, label="something else") for c in data.clips))
    expected = [label.strip() for _, label in rows]
    mended = apply_labels(other, table).clips
    assert [c.label for c in mended] == [unicodedata.normalize("NFC", e) for e in expected]


@given(text=words)
def test_no_cell_is_a_formula(text):
    assert unquoted(quoted(text)) == text
    assert not quoted(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_events_of_one_file_are_told_by_their_times(tmp_path):
    data = dataset(
        clip(start_seconds=0.1 + 0.2, end_seconds=2.0), clip(start_seconds=3.0, end_seconds=None)
    )
    write_csv(tmp_path / "t.csv", [suspicion(c) for c in data.clips])
    table = (tmp_path / "t.csv").read_text().replace('"cat","","dog"', '"cat","owl","dog"', 1)
    (tmp_path / "t.csv").write_text(table)
    assert [c.label for c in apply_labels(data, tmp_path / "t.csv").clips] == ["owl", "cat"]
    write_table(tmp_path / "u.csv", "file_name,label,start_seconds,end_seconds", 'a.wav,owl,"3,0",')
    assert [c.label for c in apply_labels(data, tmp_path / "u.csv").clips] == ["cat", "owl"]


@pytest.mark.parametrize("name", [r"cat\é.wav", " cat/é.wav ", "cat/e\u0301.wav", "./cat/é.wav"])
def test_names_as_other_programs_write_them_are_found(tmp_path, name):
    data = dataset(clip("cat/é.wav"), clip("cat/e.wav"))
    write_table(tmp_path / "t.csv", "label,file_name", f"dog,{name}")
    assert labels(apply_labels(data, tmp_path / "t.csv")) == {
        "cat/é.wav": "dog",
        "cat/e.wav": "cat",
    }


def test_a_dash_leaves_a_clip_out_and_a_new_class_is_told(tmp_path):
    data = dataset(clip("a.wav"), clip("b.wav"), clip("c.wav", "dog"))
    rows = ("a.wav,cat,-", "b.wav,cat,dgo", "c.wav,dog, ")
    write_table(tmp_path / "t.csv", "file_name,label,new_label", *rows)
    mended = apply_labels(data, tmp_path / "t.csv")
    assert labels(mended) == {"b.wav": "dgo", "c.wav": "dog"}
    assert [w.split(": ", 1)[1] for w in mended.warnings] == [
        "1 labels changed: b.wav (cat -> dgo, a new class)",
        "1 clips left out: a.wav",
    ]


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("file_name,label", "x.wav,dog", r"t.csv:2: no clip x.wav in the data: give the name"),
        ("file_name,label", ",dog", r"t.csv:2: file_name is empty"),
        ("file_name,label", "a.wav,", r"t.csv:2: label is empty: give one, or - to leave"),
        ("file_name,label", "a.wav,d\udcff", r"t.csv:2: label d\\udcff is not UTF-8"),
        ("file_name,label", "e.wav,dog", r"t.csv:2: 2 clips are in e.wav: tell which by start"),
        ("file_name,label,start_seconds", "a.wav,dog,x", r"t.csv:2: start_seconds is 'x'"),
        ("file_name,label,start_seconds", "a.wav,dog,nan", r"t.csv:2: start_seconds is 'nan'"),
        ("file_name,label,start_seconds", "e.wav,dog,9", r"t.csv:2: no clip of e.wav has these"),
        ("file_name,label", "a.wav,dog\na.wav,cat", r"t.csv:3: a.wav has another label than in l"),
        ("file_name,label", "a.wav,dog,3", r"t.csv:2: 3 cells, but the first line has 2 columns"),
        ("file_name,class", "a.wav,dog", r"no column label"),
        ("file_name,label,new_lable", "a.wav,dog,", r"did you mean new_label"),
    ],
)
def test_bad_tables_are_told_in_one_line(tmp_path, header, row, message):
    data = dataset(
        clip(), clip("e.wav", start_seconds=0.0, end_seconds=1.0), clip("e.wav", start_seconds=1.0)
    )
    write_table(tmp_path / "t.csv", header, row)
    with pytest.raises(DataError) as caught:
        apply_labels(data, tmp_path / "t.csv")
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        apply_labels(dataset(clip()), tmp_path / "none.csv")


# Regions and Audacity


def timeline(starts, dog) -> Timeline:
    dog = np.asarray(dog, dtype=np.float32)
    return Timeline(np.asarray(starts, dtype=np.float64), np.stack([1 - dog, dog], axis=1))


def test_regions_meet_halfway_between_the_middles_of_segments():
    found = regions(timeline([0, 0.25, 0.5, 0.75], [0.9, 0.7, 0.2, 0.4]), segment_seconds=1.0,
                    classes=CLASSES)  # fmt: skip
    assert found == [
        Region(0.0, 0.875, "dog", pytest.approx(0.8)),
        Region(0.875, 1.75, "cat", pytest.approx(0.7)),
    ]


def test_a_gap_parts_regions_of_one_class():
    found = regions(timeline([0, 1, 5], [0.9, 0.9, 0.9]), segment_seconds=1.0, classes=CLASSES)
    assert [(r.start_seconds, r.end_seconds) for r in found] == [(0, 2), (5, 6)]
    assert regions(timeline([], []), segment_seconds=1.0, classes=CLASSES) == []


@given(dog=st.lists(st.floats(0, 1), min_size=1, max_size=30), hop=st.sampled_from([0.1, 0.5, 1]))
def test_regions_without_gaps_cover_everything_once(dog, hop):
    starts = np.arange(len(dog)) * hop
    found = regions(timeline(starts, dog), segment_seconds=1.0, classes=CLASSES)
    ends = [0.0, *(r.end_seconds for r in found)]
    assert [r.start_seconds for r in found] == ends[:-1]
    assert ends[-1] == starts[-1] + 1.0
    assert all(a.label != b.label for a, b in itertools.pairwise(found))


def read_audacity(path: Path) -> list[tuple[float, float, str]]:
    """Labels as Audacity reads them: start, end and text, parted by tabs, one a line."""
    lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    cells = [line.split("\t") for line in lines]
    return [(float(start), float(end), text) for start, end, text in cells]


def test_audacity_reads_the_clip_and_its_regions_at_their_place_in_the_file(tmp_path):
    event = clip("dog/a.wav", "cat", start_seconds=10.0, end_seconds=11.8)
    doubted = suspicion(event, duration_seconds=1.8)
    heard = timeline([0, 0.5, 1.0], [0.9, 0.8, 0.3])
    (path,) = write_audacity(tmp_path / "labels", [doubted], [heard], segment_seconds=1.0)
    assert path == tmp_path / "labels" / "001 dog_a.wav.txt"
    assert read_audacity(path) == [
        (10.0, 11.8, "labelled cat, sounds like dog 0.93"),
        (10.0, 11.25, "dog 0.85"),
        (11.25, 11.8, "cat 0.70"),
    ]


def test_clips_of_one_file_share_a_file_of_labels_and_names_do_not_collide(tmp_path):
    clips = [clip("a/b.wav"), clip("a_b.wav"), clip("a/b.wav", start_seconds=5.0)]
    found = [suspicion(c) for c in clips]
    paths = write_audacity(tmp_path, found, [timeline([0], [0.9])] * 3, segment_seconds=1.0)
    assert [p.name for p in paths] == ["001 a_b.wav.txt", "002 a_b.wav.txt"]
    assert [start for start, _, _ in read_audacity(paths[0])] == [0, 0, 5, 5]


@settings(max_examples=40)
@given(name=names | st.just("../../up.wav") | st.just("x" * 300), label=words)
def test_no_name_leaves_the_folder_or_breaks_a_line(tmp_path_factory, name, label):
    folder = tmp_path_factory.mktemp("audacity")
    doubted = Suspicion(clip(name, label), label + "2", 0.9, {label: 0.1, label + "2": 0.9})
    (path,) = write_audacity(folder, [doubted], [timeline([0], [0.9])], segment_seconds=1.0)
    assert list(folder.iterdir()) == [path]
    assert len(read_audacity(path)) == 2
