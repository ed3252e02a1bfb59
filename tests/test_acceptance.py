"""Thresholds against the definition by brute force, and coverage against simulated newcomers."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.acceptance import Acceptance, Judged, crossfit, curve, fit, n_sources_needed


def judged(scores, *, called=0, sources=None) -> Judged:
    scores = np.asarray(scores, np.float32)
    names = [f"source {i}" for i in range(len(scores))] if sources is None else sources
    return Judged(np.broadcast_to(called, len(scores)), scores, list(names))


def threshold(rows: Judged, coverage: float) -> float:
    return fit(rows, classes=("dog",), coverage=coverage).thresholds["dog"]


@pytest.mark.parametrize("n", [19, 20, 38, 39, 40, 100, 399])
def test_with_one_clip_a_source_it_is_the_order_statistic(n):
    scores = np.random.default_rng(n).random(n).astype(np.float32)
    rank = (n + 1) // 20  # floor of 0.05 (n + 1), in whole numbers
    assert threshold(judged(scores), 0.95) == np.sort(scores)[rank - 1]


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), min_size=1, max_size=40),
    st.sampled_from([Fraction(1, 2), Fraction(3, 4), Fraction(4, 5), Fraction(9, 10)]),
)
@settings(max_examples=60)
def test_it_is_the_highest_score_with_little_enough_below(rows, coverage):
    sources = [str(source) for source, _ in rows]
    scores = [Fraction(score, 16) for _, score in rows]
    n_sources = len(set(sources))
    weights = [Fraction(1, (n_sources + 1) * sources.count(s)) for s in sources]

    def below(limit):
        return sum(w for w, s in zip(weights, scores, strict=True) if s < limit)

    allowed = [t for t in scores if below(t) + Fraction(1, n_sources + 1) <= 1 - coverage]
    found = threshold(judged([float(s) for s in scores], sources=sources), float(coverage))
    assert found == float(max(allowed, default=0))


def test_new_recordings_are_accepted_as_often_as_stated():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(1500):
        scores = rng.beta(3, 1, 60).astype(np.float32)
        shares.append(1 - threshold(judged(scores), 0.9) ** 3)  # Beta(3, 1) has x^3 below x
    # Exactly 55/61 in theory: the order statistic of rank 6 of 60; 0.9 is what is stated.
    assert np.mean(shares) == pytest.approx(55 / 61, abs=0.004)
    assert np.mean(shares) >= 0.9


def test_clips_of_one_source_do_not_count_as_many():
    """One talkative source among quiet ones; newcomers are drawn by source, as clips are found."""
    rng = np.random.default_rng(1)

    def sources(n):
        sizes = rng.choice([1, 1, 1, 40], n)
        levels = np.clip(rng.normal(0.6, 0.15, n) + 0.25 * (sizes > 1), 0, 1)
        parts = zip(levels, sizes, strict=True)
        return [np.clip(level + rng.normal(0, 0.02, size), 0, 1) for level, size in parts]

    shares, naive = [], []
    for _ in range(200):
        known, new = sources(50), sources(50)
        names = [str(i) for i, part in enumerate(known) for _ in part]
        limit = threshold(judged(np.concatenate(known), sources=names), 0.9)
        pooled = np.quantile(np.concatenate(known), 0.1)
        shares.append(np.mean([np.mean(part >= limit) for part in new]))
        naive.append(np.mean([np.mean(part >= pooled) for part in new]))
    assert 0.9 - 0.01 < np.mean(shares) < 0.95
    assert np.mean(naive) < 0.75  # what counting every clip alike would have given


def test_hearing_every_clip_by_three_networks_changes_nothing():
    once = judged(np.random.default_rng(2).random(50))
    thrice = judged(np.tile(once.scores, 3), sources=once.sources * 3)
    assert threshold(thrice, 0.95) == threshold(once, 0.95)


def test_too_few_sources_accept_everything():
    assert n_sources_needed(0.95) == 19 and n_sources_needed(0.9) == 9
    few, enough = judged(np.linspace(0.5, 1, 18)), judged(np.linspace(0.5, 1, 19))
    assert threshold(few, 0.95) == 0.0 < threshold(enough, 0.95)
    assert fit(few, classes=("dog",)).accepts(judged([0.0])).all()
    assert threshold(judged([]), 0.95) == 0.0


def test_each_class_has_its_own_threshold():
    rng = np.random.default_rng(3)
    called = np.repeat([0, 1], 40)
    scores = np.concatenate([rng.uniform(0.2, 0.4, 40), rng.uniform(0.7, 0.9, 40)])
    both = judged(scores, called=called)
    found = fit(both, classes=("cat", "dog", "bird"))
    assert found.thresholds["cat"] < 0.4 < 0.7 <= found.thresholds["dog"]
    assert found.thresholds["bird"] == 0.0
    new = judged([0.5, 0.5, 0.5], called=[0, 1, 2])
    assert found.accepts(new).tolist() == [True, False, True]


def test_a_group_does_not_judge_itself():
    rng = np.random.default_rng(4)
    rows = judged(rng.random(100))
    groups = np.arange(100) % 5
    first = crossfit(rows, groups, classes=("dog",))
    changed = np.where(groups == 2, 0.0, rows.scores).astype(np.float32)
    again = crossfit(judged(changed), groups, classes=("dog",))
    others = fit(rows.pick(groups != 2), classes=("dog",))
    assert (first[groups == 2] == others.accepts(rows.pick(groups == 2))).all()
    assert not again[groups == 2].any()


@pytest.mark.parametrize(("n", "known"), [(19, False), (23, False), (24, True), (18, True)])
def test_what_is_kept_is_unknown_where_the_others_are_too_few_to_say(n, known):
    # Without a fifth of them 23 sources are 18, and 19 are needed; of 18 nothing is ever refused.
    accepted = crossfit(judged(np.linspace(0.5, 1, n)), np.arange(n) % 5, classes=("dog",))
    assert np.isnan(accepted).any() != known
    assert n > 18 or accepted.all()


def test_the_curve_rises_from_few_to_many():
    rng = np.random.default_rng(5)
    known, foreign = judged(rng.beta(4, 1, 400)), judged(rng.beta(1, 2, 300))
    coverages = [0.5, 0.7, 0.9, 0.95, 0.99]
    found = curve(known, foreign, classes=("dog",), coverages=coverages)
    shares = [share for _, share in found]
    assert [c for c, _ in found] == coverages
    assert shares == sorted(shares) and shares[0] < 0.1 < shares[-1]
    assert math.isnan(curve(known, judged([]), classes=("dog",), coverages=[0.9])[0][1])


def test_it_is_the_same_after_json():
    found = fit(judged(np.random.default_rng(6).random(64)), classes=("dog",))
    back = Acceptance.from_dict(json.loads(json.dumps(found.as_dict())), classes=("dog",))
    assert back == found


def test_thresholds_are_kept_in_the_order_of_the_classes():
    values = {"coverage": 0.9, "thresholds": {"dog": 0.2, "cat": 0.6}}
    found = Acceptance.from_dict(values, classes=("cat", "dog"))
    assert found.accepts(judged([0.5, 0.5], called=[0, 1])).tolist() == [False, True]


GOOD = {"coverage": 0.95, "thresholds": {"cat": 0.5, "dog": 0.5}}


@pytest.mark.parametrize(
    "change",
    [
        {"coverage": 1.0},
        {"coverage": "0.95"},
        {"coverage": True},
        {"coverage": math.nan},
        {"thresholds": None},
        {"thresholds": [0.5, 0.5]},
        {"thresholds": {"cat": 0.5}},
        {"thresholds": {"cat": 0.5, "cow": 0.5}},
        {"thresholds": {"cat": 0.5, "dog": 1.5}},
        {"thresholds": {"cat": 0.5, "dog": -0.1}},
        {"thresholds": {"cat": 0.5, "dog": None}},
        {"thresholds": {"cat": 0.5, "dog": math.inf}},
    ],
)
def test_what_is_no_acceptance_is_refused(change):
    with pytest.raises(ValueError, match=r"coverage|threshold"):
        Acceptance.from_dict(GOOD | change, classes=("cat", "dog"))
    assert Acceptance.from_dict(GOOD, classes=("cat", "dog")).coverage == 0.95


def test_a_coverage_must_be_there():
    with pytest.raises(ValueError, match="coverage"):
        Acceptance.from_dict({"thresholds": {}}, classes=())
