from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from stapes.clips import Clip
from stapes.errors import DataError, UsageError
from stapes.splits import check_undivided, folds, given_split, split


def clips_of(*sources: tuple[str, str, int]) -> list[Clip]:
    """Clips from (label, source, number of clips)."""
    return [
        Clip(Path(f"{source}-{i}"), f"{label}/{source}-{i}", label, source)
        for label, source, n in sources
        for i in range(n)
    ]


def many_clips(seed: int = 0, *, n_classes: int = 3, n_sources: int = 40) -> list[Clip]:
    """Classes of different size, sources of 1 to 5 clips."""
    sizes = np.random.default_rng(seed).integers(1, 6, size=(n_classes, n_sources))
    return clips_of(
        *(
            (f"c{label}", f"s{label}-{i}", int(n))
            for label, row in enumerate(sizes)
            for i, n in enumerate(row[: n_sources // (label + 1)])
        )
    )


def sources_of(clips: list[Clip], indices: list[int]) -> set[str]:
    return {clips[i].source for i in indices}


def labels_of(clips: list[Clip], indices: list[int]) -> Counter[str]:
    return Counter(clips[i].label for i in indices)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.lists(st.integers(1, 7), min_size=2, max_size=12), min_size=2, max_size=4),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**32 - 1),
)
def test_split_divides_clips_but_no_source_and_no_class(sizes, share, seed):
    clips = clips_of(
        *((f"c{c}", f"s{c}-{i}", n) for c, row in enumerate(sizes) for i, n in enumerate(row))
    )
    rest, held = split(clips, share=share, seed=seed)
    assert sorted(rest + held) == list(range(len(clips)))
    assert rest == sorted(rest) and held == sorted(held)
    assert not sources_of(clips, rest) & sources_of(clips, held)
    assert set(labels_of(clips, rest)) == set(labels_of(clips, held)) == {c.label for c in clips}


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_split_holds_the_wanted_share_of_every_class(share):
    clips = many_clips()
    _, held = split(clips, share=share, seed=1)
    for label, n in labels_of(clips, held).items():
        total = sum(clip.label == label for clip in clips)
        assert abs(n - share * total) <= 2.5  # half of the largest source


def test_split_is_the_same_for_a_seed_whatever_the_order_of_clips():
    clips = many_clips()
    held = sources_of(clips, split(clips, share=0.2, seed=3)[1])
    turned = clips[::-1]
    assert sources_of(turned, split(turned, share=0.2, seed=3)[1]) == held
    assert sources_of(clips, split(clips, share=0.2, seed=4)[1]) != held


def test_every_source_is_held_out_by_some_seed():
    clips = clips_of(*((label, f"{label}{i}", 1 + i) for label in "ab" for i in range(5)))
    held = set().union(*(sources_of(clips, split(clips, share=0.3, seed=s)[1]) for s in range(60)))
    assert held == {clip.source for clip in clips}


def test_split_of_sources_that_hold_both_classes():
    clips = clips_of(*((label, f"s{i}", 2) for i in range(10) for label in "ab"))
    rest, held = split(clips, share=0.3, seed=0)
    assert labels_of(clips, held) == {"a": 6, "b": 6}
    assert not sources_of(clips, rest) & sources_of(clips, held)


def can_be_split(classes: list[set[int]], *, n_sources: int) -> bool:
    """Whether any choice of sources has one of every class inside and one outside: all tried."""
    choices = (
        {i for i in range(n_sources) if number >> i & 1} for number in range(1, 2**n_sources - 1)
    )
    return any(all(held & c and c - held for c in classes) for held in choices)


@settings(max_examples=100)
@given(
    classes=st.lists(st.sets(st.integers(0, 7), min_size=2, max_size=3), min_size=2, max_size=14),
    seed=st.integers(0, 1000),
)
def test_a_split_is_found_where_there_is_one(classes, seed):
    clips = clips_of(*((f"c{c}", f"s{i}", 1) for c, row in enumerate(classes) for i in row))
    if not can_be_split(classes, n_sources=8):
        with pytest.raises(DataError, match="no split"):
            split(clips, share=0.2, seed=seed)
        return
    parts = split(clips, share=0.2, seed=seed)
    assert not set.intersection(*(sources_of(clips, part) for part in parts))
    assert all(len(labels_of(clips, part)) == len(classes) for part in parts)


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_in_a_chain_of_classes_can_be_split(seed):
    clips = clips_of(*((f"c{c}", f"s{s}", 1) for c in range(29) for s in (c, c + 1)))
    _, held = split(clips, share=0.2, seed=seed)
    assert len(labels_of(clips, held)) == 29


def test_split_without_a_solution():
    # Every class is in two of three sources: two of them are on one side, and so is their class.
    pairs = [("a", "s0"), ("a", "s1"), ("b", "s1"), ("b", "s2"), ("c", "s2"), ("c", "s0")]
    with pytest.raises(DataError, match="without dividing a source"):
        split(clips_of(*((label, source, 1) for label, source in pairs)), share=0.5, seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan"), float("inf")])
def test_share_out_of_range(share):
    with pytest.raises(UsageError, match="above 0 and below 1"):
        split(many_clips(), share=share, seed=0)


@pytest.mark.parametrize("n_folds", [2, 5, 10])
def test_folds_partition_by_source_and_keep_classes_even(n_folds):
    clips = many_clips()
    pairs = folds(clips, n_folds=n_folds, seed=0)
    assert len(pairs) == n_folds
    assert sorted(i for _, held in pairs for i in held) == list(range(len(clips)))
    for rest, held in pairs:
        assert sorted(rest + held) == list(range(len(clips)))
        assert not sources_of(clips, rest) & sources_of(clips, held)
    for label in {clip.label for clip in clips}:
        counts = [labels_of(clips, held)[label] for _, held in pairs]
        assert min(counts) > 0
        assert max(counts) - min(counts) <= 5  # the largest source


def test_folds_are_as_even_as_those_of_scikit_learn():
    clips = many_clips(7)
    labels = np.array([clip.label for clip in clips])
    groups = [clip.source for clip in clips]

    def spread(tests: list[list[int]]) -> float:
        counts = [
            [labels_of(clips, held)[label] for label in sorted(set(labels))] for held in tests
        ]
        return float(np.std(np.array(counts) / np.array(counts).sum(axis=0), axis=0).mean())

    theirs = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, groups)
    ours = spread([held for _, held in folds(clips, seed=0)])
    assert ours <= spread([held.tolist() for _, held in theirs]) + 0.005


def test_folds_depend_on_the_seed_only():
    clips = many_clips()
    assert folds(clips, seed=5) == folds(clips, seed=5)
    assert folds(clips, seed=5) != folds(clips, seed=6)


def test_given_folds_are_used_in_order():
    clips = [
        replace(clip, fold=1 + i % 3)
        for i, clip in enumerate(
            clips_of(*((label, f"{label}{i}", 1) for label in "ab" for i in range(6)))
        )
    ]
    pairs = folds(clips, n_folds=5, seed=0)
    assert [sorted({clips[i].fold for i in held}) for _, held in pairs] == [[1], [2], [3]]
    assert pairs[0][1] == [0, 3, 6, 9]


def test_what_shares_a_source_with_a_given_fold_is_left_out_of_its_training():
    clips = clips_of(("a", "rec-1", 2), ("a", "rec-2", 1), ("b", "rec-3", 1), ("b", "rec-4", 1))
    clips = [replace(clip, fold=1 + i % 2) for i, clip in enumerate(clips)]
    clips += [replace(c, name=f"{c.name}-2", source=f"{c.source}-2") for c in clips[2:]]
    allowed = folds(clips, seed=0, allow_leaks=True)
    assert allowed == [([1, 3, 6], [0, 2, 4, 5, 7]), ([0, 2, 4, 5, 7], [1, 3, 6])]
    with pytest.raises(DataError, match="nothing of class a is left to learn from"):
        folds(clips, seed=0)
    clips.append(replace(clips[2], name="a/new", source="new", fold=2))
    purged = folds(clips, seed=0)
    assert purged == [([3, 6, 8], [0, 2, 4, 5, 7]), ([2, 4, 5, 7], [1, 3, 6, 8])]
    for training, held in purged:
        assert sources_of(clips, training).isdisjoint(sources_of(clips, held))


def test_what_shares_a_source_with_the_given_test_part_is_left_out_of_the_training():
    clips = clips_of(("a", "rec-1", 2), ("a", "rec-2", 1), ("b", "rec-3", 1), ("b", "rec-4", 1))
    parts = ["train", "test", "train", "train", "test"]
    clips = [replace(clip, part=part) for clip, part in zip(clips, parts, strict=True)]
    assert given_split(clips) == ([2, 3], [1, 4])
    assert given_split(clips, allow_leaks=True) == ([0, 2, 3], [1, 4])


def test_a_split_that_divides_a_source_is_named():
    clips = clips_of(("a", "rec-1", 2), ("a", "rec-2", 1), ("b", "rec-3", 1))
    by_fold = [replace(clip, fold=1 + i % 2) for i, clip in enumerate(clips)]
    with pytest.raises(DataError, match=r"1 source.*rec-1-0 \(fold 1\) and a/rec-1-1 \(fold 2\)"):
        check_undivided(by_fold)
    by_part = [replace(c, part="test" if i == 1 else "train") for i, c in enumerate(clips)]
    with pytest.raises(DataError, match=r"rec-1-0 \(part train\) and a/rec-1-1 \(part test\)"):
        check_undivided(by_part)
    check_undivided(clips)
    check_undivided([replace(clip, fold=1) for clip in clips])


def test_given_folds_that_some_clips_lack():
    clips = clips_of(("a", "r1", 1), ("a", "r2", 1), ("b", "r3", 2))
    clips[0] = replace(clips[0], fold=1)
    with pytest.raises(DataError, match=r"fold is empty for 3 of 4 clips \(a/r2-0, b/r3-0"):
        folds(clips, seed=0)


def test_given_folds_that_leave_nothing_of_a_class_to_train_on():
    clips = [
        replace(clip, fold=fold)
        for clip, fold in zip(
            clips_of(("a", "r1", 1), ("a", "r2", 1), ("b", "r3", 1), ("b", "r4", 1)),
            [1, 2, 2, 2],
            strict=True,
        )
    ]
    with pytest.raises(DataError, match="nothing of class b is left to learn from beside a/r2-0"):
        folds(clips, seed=0)


@pytest.mark.parametrize(
    ("clips", "match"),
    [
        ([], "no clips"),
        (clips_of(("a", "r1", 9), ("a", "r2", 9)), "one class, a: give at least two"),
        (clips_of(("a", "r1", 9), ("a", "r2", 9), ("b", "r3", 9)), "class b has clips of 1 source"),
    ],
    ids=["nothing", "one class", "one source"],
)
def test_what_cannot_be_divided(clips, match):
    with pytest.raises(DataError, match=match):
        split(clips, share=0.2, seed=0)
    with pytest.raises(DataError, match=match):
        folds(clips, seed=0)


def test_fewer_sources_than_folds():
    clips = clips_of(*((label, f"{label}{i}", 3) for label in "ab" for i in range(4)))
    with pytest.raises(DataError, match=r"class a has clips of 4 source\(s\), and 5 are needed"):
        folds(clips, n_folds=5, seed=0)


def test_one_fold():
    with pytest.raises(UsageError, match="at least 2"):
        folds(many_clips(), n_folds=1, seed=0)


def test_given_split_needs_a_part_for_every_clip():
    clips = clips_of(("a", "r1", 1), ("a", "r2", 1), ("b", "r3", 1), ("b", "r4", 1))
    assert given_split(clips) is None
    parts = ["train", "test", "train", "test"]
    clips = [replace(clip, part=part) for clip, part in zip(clips, parts, strict=True)]
    assert given_split(clips) == ([0, 2], [1, 3])
    assert given_split([*clips, replace(clips[0], part=None)]) is None
    assert given_split(clips[:1]) is None
