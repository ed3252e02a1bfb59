"""Metrics against scikit-learn and by hand; intervals against ones written out."""

import itertools
import random

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import assume, given
from hypothesis import strategies as st

from stapes import evaluation

NOTHING = np.zeros(0, np.int64)


def drawn(seed: int, *, n: int, n_classes: int):
    """Random targets and shares with many ties, and not every class present."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, rng.integers(1, n_classes + 1), n)
    shares = np.round(rng.dirichlet(np.ones(n_classes), n), 1).astype(np.float32)
    return targets, shares


cases = st.builds(drawn, st.integers(0, 2**32), n=st.integers(1, 60), n_classes=st.integers(2, 5))


@given(cases)
def test_counts_and_recalls_are_those_of_scikit_learn(case):
    targets, shares = case
    n_classes, found = shares.shape[1], shares.argmax(axis=1)
    matrix = evaluation.confusion(targets, found, n_classes=n_classes)
    labels = list(range(n_classes))
    np.testing.assert_array_equal(
        matrix, sklearn.metrics.confusion_matrix(targets, found, labels=labels)
    )
    assert evaluation.accuracy(targets, found) == pytest.approx(
        sklearn.metrics.accuracy_score(targets, found)
    )
    wanted = sklearn.metrics.recall_score(
        targets, found, labels=labels, average=None, zero_division=np.nan
    )
    np.testing.assert_allclose(evaluation.recalls(matrix), wanted)
    assert evaluation.balanced_accuracy(matrix) == pytest.approx(np.nanmean(wanted))


def area_by_pairs(positive, scores):
    """The share of pairs in the right order, a tie counting half."""
    pairs = [(p, n) for p in scores[positive] for n in scores[~positive]]
    return np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs])


@given(cases)
def test_the_roc_area_is_the_share_of_pairs_in_order(case):
    targets, shares = case
    n_classes = shares.shape[1]
    one_against_rest = [1] if n_classes == 2 else range(n_classes)
    areas = [
        area_by_pairs(targets == c, shares[:, c])
        for c in one_against_rest
        if len(set(targets == c)) == 2
    ]
    wanted = np.mean(areas) if areas else np.nan
    assert evaluation.roc_area(targets, shares) == pytest.approx(wanted, nan_ok=True)


@given(cases)
def test_the_roc_curve_goes_through_every_threshold(case):
    targets, shares = case
    positive, scores = targets == 0, shares[:, 0]
    assume(len(set(positive)) == 2)
    thresholds = [np.inf, *sorted(set(scores), reverse=True)]
    wanted = [[np.mean(scores[part] >= t) for t in thresholds] for part in (~positive, positive)]
    points = np.transpose(wanted)
    corners = np.transpose(evaluation.roc_curve(targets, shares, index=0))
    ways = list(itertools.pairwise(corners))
    for point in points:  # lies on the way from one corner to the next
        by_way_of = [np.abs(a - point).sum() + np.abs(point - b).sum() for a, b in ways]
        straight = [np.abs(a - b).sum() for a, b in ways]
        bent = [abs(np.linalg.det(np.array([b - a, point - a]))) for a, b in ways]
        assert min(np.abs(np.subtract(by_way_of, straight)) + bent) < 1e-9
    for corner in corners:
        assert np.abs(points - corner).sum(axis=1).min() < 1e-9


def test_metrics_by_hand():
    # Two cats, three dogs; one dog is called a cat.
    targets, found = np.array([0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1])
    matrix = evaluation.confusion(targets, found, n_classes=3)
    assert matrix.tolist() == [[2, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert evaluation.accuracy(targets, found) == pytest.approx(4 / 5)
    np.testing.assert_allclose(evaluation.recalls(matrix), [1, 2 / 3, np.nan])
    assert evaluation.balanced_accuracy(matrix) == pytest.approx((1 + 2 / 3) / 2)


def test_roc_area_by_hand_counts_a_tie_as_half_a_win():
    # Positives 0.8, 0.5; negatives 0.5, 0.2: three wins and a tie of four pairs.
    shares = np.float32([[0.2, 0.8], [0.5, 0.5], [0.5, 0.5], [0.8, 0.2]])
    assert evaluation.roc_area(np.array([1, 1, 0, 0]), shares) == pytest.approx(3.5 / 4)


def test_nothing_has_a_defined_answer():
    assert np.isnan(evaluation.accuracy(NOTHING, NOTHING))
    empty = evaluation.confusion(NOTHING, NOTHING, n_classes=2)
    assert empty.tolist() == [[0, 0], [0, 0]]
    assert np.isnan(evaluation.recalls(empty)).all()
    assert np.isnan(evaluation.balanced_accuracy(empty))
    assert np.isnan(evaluation.roc_area(NOTHING, np.zeros((0, 2), np.float32)))
    assert np.isnan(evaluation.interval(np.zeros(0, bool), [])).all()
    summary = evaluation.summarise(NOTHING, np.zeros((0, 2), np.float32), ("cat", "dog"))
    assert summary["n"] == 0


def test_a_class_that_is_missing_makes_the_area_nan_and_nothing_else():
    summary = evaluation.summarise(
        np.array([0, 0]), np.float32([[0.9, 0.1], [0.2, 0.8]]), ("cat", "dog")
    )
    assert np.isnan(summary["roc_area"])
    assert summary["accuracy"] == summary["balanced_accuracy"] == 0.5
    assert np.isnan(summary["recall"]["dog"])


def brute_force(right, sources, *, n_draws: int) -> list[float]:
    """Accuracies of whole sources drawn with replacement, in plain Python."""
    rng = random.Random(1)
    by_source: dict[str, list[bool]] = {}
    for correct, source in zip(right, sources, strict=True):
        by_source.setdefault(source, []).append(bool(correct))
    names, accuracies = list(by_source), []
    for _ in range(n_draws):
        clips = [c for name in rng.choices(names, k=len(names)) for c in by_source[name]]
        accuracies.append(sum(clips) / len(clips))
    return accuracies


def worlds(seed: int, *, n_sources: int = 40, n_clips: int = 120):
    """Whether clips were right, and their sources, of which some are harder."""
    rng = np.random.default_rng(seed)
    sources = [f"s{i}" for i in rng.integers(0, n_sources, n_clips)]
    luck = dict(zip(sources, rng.uniform(0.3, 1, n_clips), strict=True))
    return np.array([rng.uniform() < luck[s] for s in sources]), sources


@pytest.mark.parametrize("seed", range(3))
def test_with_many_sources_the_interval_is_that_of_a_bootstrap(seed):
    right, sources = worlds(seed)
    wanted = np.quantile(brute_force(right, sources, n_draws=4000), [0.025, 0.975])
    found = evaluation.interval(right, sources)
    np.testing.assert_allclose(found, wanted, atol=0.025)  # share of clips; drawn error ~0.004
    assert found == evaluation.interval(right, sources)


def left_out_one_by_one(values, sources) -> tuple[float, float]:
    """The jackknife's standard error in plain Python, and Kish's number of sources."""
    names = sorted(set(sources))
    rows = list(zip(values, sources, strict=True))
    means = [np.mean([v for v, s in rows if s != name]) for name in names]
    mean, n = np.mean([v for v, _ in rows]), len(names)
    counts = np.array([sources.count(name) for name in names])
    error = np.sqrt((n - 1) / n * sum((m - mean) ** 2 for m in means))
    return error, counts.sum() ** 2 / (counts**2).sum()


@pytest.mark.parametrize("n_sources", [2, 5, 12])
def test_the_interval_is_that_of_trials_which_vary_as_much_as_the_sources(n_sources):
    right, sources = worlds(1, n_sources=n_sources, n_clips=60)
    error, n_alike = left_out_one_by_one(right, sources)
    student, share = scipy.stats.t.ppf, right.mean()
    freedom = max(n_alike - 1, 1)
    n = share * (1 - share) / error**2 * (student(0.975, 59) / student(0.975, freedom)) ** 2
    n = min(n, 60)
    assert any(right[np.array(sources) == s].mean() < 0.5 for s in sources) or n_sources == 2
    low = scipy.stats.beta.ppf(0.025, share * n, n - share * n + 1)
    high = scipy.stats.beta.ppf(0.975, share * n + 1, n - share * n)
    assert evaluation.interval(right, sources) == pytest.approx((low, high))


@pytest.mark.parametrize("n_sources", [2, 5, 12])
def test_the_interval_of_a_difference_is_students(n_sources):
    (a, sources), (b, _) = (worlds(seed, n_sources=n_sources, n_clips=60) for seed in (1, 2))
    difference = a.astype(int) - b
    error, n_alike = left_out_one_by_one(difference, sources)
    reach = scipy.stats.t.ppf(0.975, max(n_alike - 1, 1)) * error
    wanted = np.clip([difference.mean() - reach, difference.mean() + reach], -1, 1)
    assert evaluation.compare(a, b, sources)["interval"] == pytest.approx(wanted.tolist())


def test_one_clip_more_does_not_make_a_wide_interval_narrow():
    sources = np.repeat(["a", "b"], 50).tolist()
    alike, nearly = (
        evaluation.interval(np.repeat([True, False, True, False], n), sources)
        for n in ([45, 5, 45, 5], [45, 5, 46, 4])
    )
    assert alike[0] < 0.2
    assert nearly[0] < 0.75  # a bootstrap says 0.90 to 0.92
    few = np.repeat([str(i) for i in range(5)], 20).tolist()
    all_right, one_wrong = (evaluation.interval(np.arange(100) >= n, few) for n in (0, 1))
    assert all_right[0] == pytest.approx(0.478, abs=0.001)  # of five trials
    assert one_wrong[0] == pytest.approx(0.473, abs=0.001)  # a bootstrap says 0.97


def test_where_no_source_fails_the_interval_allows_for_some_that_do():
    rng, held = np.random.default_rng(0), []
    sources = np.repeat([str(i) for i in range(10)], 20).tolist()
    truth = 0.9 * 0.99 + 0.1 * 0.2
    for _ in range(300):
        luck = np.repeat(np.where(rng.random(10) < 0.1, 0.2, 0.99), 20)
        low, high = evaluation.interval(rng.random(200) < luck, sources)
        held.append(low <= truth <= high)
    assert np.mean(held) > 0.95  # by the spread of the sources alone in 0.70


@pytest.mark.parametrize("n_each", [1, 20])
@pytest.mark.parametrize("n_sources", [3, 10])
def test_intervals_of_few_sources_hold_the_truth_as_often_as_they_say(n_sources, n_each):
    rng, held = np.random.default_rng(0), []
    sources = np.repeat([str(i) for i in range(n_sources)], n_each).tolist()
    for _ in range(400):
        luck = np.repeat(rng.beta(0.9 * 4, 0.1 * 4, n_sources), n_each)
        low, high = evaluation.interval(rng.random(len(luck)) < luck, sources)
        held.append(low <= 0.9 <= high)
    assert np.mean(held) > 0.9  # standard error 0.011; a bootstrap holds it in 0.76 to 0.89


def test_clips_of_one_source_stand_or_fall_together():
    # 100 clips of 4 sources, two all right and two all wrong, are four trials, which say nothing.
    right = np.repeat([True, True, False, False], 25)
    found = evaluation.interval(right, np.repeat(list("abcd"), 25).tolist())
    assert found == pytest.approx((0, 1), abs=0.03)
    # Of 100 sources the binomial interval is 0.5 +- 1.96 * 0.05.
    low, high = evaluation.interval(right, [str(i) for i in range(100)])
    assert (low, high) == pytest.approx((0.402, 0.598), abs=0.005)


@pytest.mark.parametrize("n_each", [1, 4])
@pytest.mark.parametrize("n_sources", [1, 5, 40])
def test_the_interval_of_one_outcome_is_the_exact_one_of_so_many_sources(n_sources, n_each):
    sources = [str(i) for i in range(n_sources)] * n_each
    exact = scipy.stats.binomtest(n_sources, n_sources).proportion_ci(0.95, method="exact")
    low, high = evaluation.interval(np.full(len(sources), True), sources)
    assert (low, high) == pytest.approx((exact.low, 1.0))
    wrong = evaluation.interval(np.full(len(sources), False), sources)
    assert wrong == pytest.approx((0.0, 1 - low))


def test_the_interval_of_sources_that_are_all_half_right_is_no_point():
    exact = scipy.stats.binomtest(5, 10).proportion_ci(0.95, method="exact")
    found = evaluation.interval(np.tile([True, False], 10), np.repeat(list("abcdefghij"), 2))
    assert found == pytest.approx((exact.low, exact.high))


def test_nineteen_of_twenty_intervals_hold_the_accuracy_of_few_good_answers():
    rng = np.random.default_rng(0)
    sources = [str(i) for i in range(20)]
    held = [
        low <= 0.95 <= high
        for low, high in (evaluation.interval(rng.random(20) < 0.95, sources) for _ in range(300))
    ]
    assert np.mean(held) > 0.9  # two thirds without the exact one: a third have no mistake


def test_the_interval_of_many_segments_is_that_of_their_sources():
    rng = np.random.default_rng(0)
    sources = np.array([f"s{i}" for i in rng.integers(0, 50, 20_000)])
    right = rng.random(20_000) < 0.5 + 0.4 * (np.char.str_len(sources) == 2)
    wanted = np.quantile(brute_force(right, sources, n_draws=400), [0.025, 0.975])
    np.testing.assert_allclose(evaluation.interval(right, sources), wanted, atol=0.015)


outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(outcomes)
def test_one_row_a_source_makes_the_p_value_that_of_mcnemar(pairs):
    a, b = np.array(pairs).T
    n_a, n_b = int((a & ~b).sum()), int((b & ~a).sum())
    found = evaluation.compare(a, b, [str(i) for i in range(len(a))])
    wanted = scipy.stats.binomtest(n_a, n_a + n_b).pvalue if n_a + n_b else 1.0
    assert found["p_value"] == pytest.approx(wanted)
    assert found["accuracy"] == pytest.approx(a.mean() - b.mean())


@given(outcomes, st.integers(1, 5), st.integers(0, 2**32))
def test_the_p_value_is_that_of_all_ways_to_exchange_answers(pairs, n_sources, seed):
    a, b = np.array(pairs).T
    source = np.random.default_rng(seed).integers(0, n_sources, len(a))
    ahead = np.array([a[source == s].sum() - b[source == s].sum() for s in range(n_sources)])
    exchanged = [
        abs(np.dot(signs, ahead)) for signs in itertools.product([-1, 1], repeat=len(ahead))
    ]
    wanted = np.mean(np.array(exchanged) >= abs(ahead.sum()))
    found = evaluation.compare(a, b, source.astype(str).tolist())
    assert found["p_value"] == pytest.approx(wanted)


def test_the_same_seed_thrice_proves_no_more_than_once():
    rng = np.random.default_rng(0)
    a, b = rng.random(100) < 0.9, rng.random(100) < 0.8
    sources = [str(i) for i in range(100)]
    once = evaluation.compare(a, b, sources)
    thrice = evaluation.compare(np.tile(a, 3), np.tile(b, 3), sources * 3)
    assert thrice["p_value"] == pytest.approx(once["p_value"])
    assert thrice["interval"] == pytest.approx(once["interval"])


def test_a_comparison_is_of_pairs():
    # b is wrong wherever a is, and five times more: 0.05 ahead in 100, 2 * 2^-5 by chance.
    a, b = np.arange(100) >= 20, np.arange(100) >= 25
    sources = [str(i) for i in range(100)]
    found, back = evaluation.compare(a, b, sources), evaluation.compare(b, a, sources)
    assert found["accuracy"] == pytest.approx(0.05)
    assert found["p_value"] == back["p_value"] == pytest.approx(2 / 32)
    assert found["interval"] == pytest.approx([0.01, 0.1], abs=0.011)  # binomial of 100 at 0.05
    assert back["interval"] == pytest.approx([-end for end in reversed(found["interval"])])
    alike = evaluation.compare(a, a, sources)
    assert (alike["accuracy"], alike["p_value"]) == (0, 1)
    unseen = scipy.stats.binomtest(0, 100).proportion_ci(0.95, method="exact").high
    assert alike["interval"] == pytest.approx([-unseen, unseen])


def test_a_difference_that_all_of_few_sources_share_is_not_known_exactly():
    a, b = np.ones(20, bool), np.arange(20) % 2 > 0
    found = evaluation.compare(a, b, np.repeat(list("abcde"), 4).tolist())
    assert found["accuracy"] == 0.5
    low, high = found["interval"]  # of five trials up to 0.522 may be missed
    assert (low, high) == pytest.approx((0.5 - 1.5 * 0.5218, 0.5 + 0.5 * 0.5218), abs=1e-3)


def test_nothing_to_compare_has_a_defined_answer():
    found = evaluation.compare(np.zeros(0, bool), np.zeros(0, bool), [])
    assert np.isnan([found["accuracy"], *found["interval"], found["p_value"]]).all()


def test_equals_are_rarely_told_apart_and_the_interval_mostly_holds_the_truth():
    # 60 sources of 1 to 3 clips; a source is hard or easy, for both alike.
    rng, n_trials = np.random.default_rng(0), 300
    held, rejected = 0, 0
    for _ in range(n_trials):
        source = np.repeat(np.arange(60), rng.integers(1, 4, 60))
        chance = rng.beta(2, 1, (60, 2)).mean(axis=1)[source]
        luck_a, luck_b = rng.random((2, 60))  # whole sources stand or fall together
        a, b = luck_a[source] < chance, luck_b[source] < chance
        found = evaluation.compare(a, b, source.astype(str).tolist())
        held += found["interval"][0] <= 0 <= found["interval"][1]
        rejected += found["p_value"] <= 0.05
    # Of 300 trials the standard error is 0.013.
    assert 0.90 <= held / n_trials <= 0.98
    assert rejected / n_trials <= 0.05 + 3 * 0.013
