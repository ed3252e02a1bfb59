"""Calibration against PyTorch, scikit-learn and by hand."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from stapes import calibration
from stapes.calibration import (
    Calibration,
    calibration_error,
    crossfit,
    error_by_chance,
    fit_temperature,
    scale,
)

temperatures = st.floats(calibration.LOWEST, calibration.HIGHEST)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def answers(seed, *, n, n_classes, sureness=1.0):
    """Labels drawn from true probabilities, and these at a temperature of 1 / sureness."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, n_classes))
    targets = (softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return targets.clip(max=n_classes - 1), softmax(sureness * logits).astype(np.float32)


def rounded(seed, n_classes, decimals):
    """Probabilities with zeros, ones and many ties."""
    rng = np.random.default_rng(seed)
    shares = np.round(rng.dirichlet(np.full(n_classes, 0.3), 40), decimals) + 0.0
    shares[:, 0] += shares.sum(axis=1) == 0
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


tables = st.builds(rounded, st.integers(0, 2**32), st.integers(2, 5), st.integers(1, 7))


@given(tables, temperatures)
def test_scaling_keeps_the_answer_the_order_and_the_ties(shares, temperature):
    scaled = scale(shares, temperature)
    assert scaled.dtype == shares.dtype
    np.testing.assert_array_equal(scaled.argmax(axis=1), shares.argmax(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1, atol=1e-6)
    for before, after in zip(shares, scaled, strict=True):
        assert (np.diff(after[np.argsort(before, kind="stable")]) >= 0).all()
        first, second = np.sort(before)[-2:]
        assert (first == second) == (np.sort(after)[-2] == np.sort(after)[-1])


@given(tables, temperatures, temperatures)
def test_a_higher_temperature_is_never_surer(shares, one, other):
    cool, hot = sorted([one, other])
    margin = scale(shares, cool).max(axis=1) - scale(shares, hot).max(axis=1)
    if cool > 1 or hot < 1:
        assert (margin > -1e-6).all()


@given(st.integers(0, 2**32), st.floats(0.5, 4), st.floats(0.5, 4))
def test_two_temperatures_are_one(seed, one, other):
    shares = np.random.default_rng(seed).dirichlet(np.full(3, 5), 20)
    twice = scale(scale(shares, one), other)
    np.testing.assert_allclose(twice, scale(shares, one * other), atol=1e-4)


def test_scaling_by_hand():
    # Odds of 4 to 1 become those of their square root, 2 to 1, and of their square, 16 to 1.
    shares = np.float32([[0.8, 0.2]])
    np.testing.assert_allclose(scale(shares, 2.0), [[2 / 3, 1 / 3]], atol=1e-6)
    np.testing.assert_allclose(scale(shares, 0.5), [[16 / 17, 1 / 17]], atol=1e-6)
    assert scale(shares, 1.0) is shares


def test_certainty_can_be_doubted():
    # float32 rounds 1 - 1e-9 to 1: an odds ratio of at least 2^24, whose 8th root is 8.
    certain = scale(np.float32([[1, 0]]), 8.0)
    np.testing.assert_allclose(certain, [[8 / 9, 1 / 9]], atol=1e-6)


def test_a_winner_by_a_hair_stays_the_winner():
    shares = np.float32([[np.nextafter(np.float32(0.5), np.float32(0)), 0.5]])
    scaled = scale(shares, 20.0)
    assert scaled[0, 1] > scaled[0, 0] == pytest.approx(0.5)


def torch_temperature(targets, shares):
    """The minimum of cross-entropy over 1/T, by L-BFGS, of shares known to half a float32."""
    import torch

    logits = torch.from_numpy(np.log(shares.astype(np.float64) + 2**-24))
    beta = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([beta], max_iter=200, tolerance_grad=1e-12)

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(beta * logits, torch.from_numpy(targets))
        loss.backward()
        return loss

    optimiser.step(closure)
    return 1 / beta.item()


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("sureness", [0.5, 1.0, 3.0])
def test_the_temperature_is_that_of_torch_and_of_the_truth(n_classes, sureness):
    targets, shares = answers(1, n=20_000, n_classes=n_classes, sureness=sureness)
    found = fit_temperature(targets, shares)
    assert found == pytest.approx(torch_temperature(targets, shares), rel=1e-3)  # 1 of 20,001
    assert found == pytest.approx(sureness, rel=0.05)  # chance, and that half


def test_three_seeds_that_say_the_same_are_no_surer_than_one():
    targets = np.zeros(20, np.int64)  # all right at 0.9, where one more label counts most
    shares = np.tile(np.array([[0.9, 0.1]], np.float32), (20, 1))
    once, folds = fit_temperature(targets, shares), np.arange(20) % 5
    thrice, threefold = np.tile(targets, 3), np.tile(shares, (3, 1))
    assert fit_temperature(thrice, threefold, weight=1 / 3) == pytest.approx(once)
    assert fit_temperature(thrice, threefold) < once - 0.1
    np.testing.assert_allclose(
        crossfit(thrice, threefold, np.tile(folds, 3), weight=1 / 3)[:20],
        crossfit(targets, shares, folds),
        rtol=1e-6,
    )


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(2, 4))
def test_any_labels_have_a_temperature_that_a_model_can_keep(seed, n, n_classes):
    rng = np.random.default_rng(seed)
    shares = np.round(rng.dirichlet(np.ones(n_classes), n), 2).astype(np.float32)
    Calibration(fit_temperature(rng.integers(0, n_classes, n), shares))


def test_what_cannot_be_fitted_is_left_alone():
    nothing = np.zeros(0, np.int64)
    assert fit_temperature(nothing, np.zeros((0, 2), np.float32)) == 1
    assert fit_temperature(np.array([0, 1]), np.full((2, 2), 0.5, np.float32)) == 1
    assert fit_temperature(np.array([0, 0]), np.ones((2, 1), np.float32)) == 1


def test_answers_all_right_become_as_sure_as_their_number_allows():
    # Beside n right answers of odds e there is one label that is either class: the best
    # probability is (n + 1/2) / (n + 1).
    n = 20
    share = math.e / (1 + math.e)
    targets, shares = np.zeros(n, np.int64), np.tile([share, 1 - share], (n, 1))
    scaled = scale(shares, fit_temperature(targets, shares))
    np.testing.assert_allclose(scaled[:, 0], (n + 0.5) / (n + 1), atol=1e-6)
    assert fit_temperature(1 - targets, shares) == pytest.approx(calibration.HIGHEST)


def test_crossfitting_never_looks_at_its_own_fold():
    targets, shares = answers(3, n=300, n_classes=3, sureness=3)
    folds = np.arange(300) % 3
    scaled = crossfit(targets, shares, folds)
    for fold in range(3):
        own = folds == fold
        wanted = scale(shares[own], fit_temperature(targets[~own], shares[~own]))
        np.testing.assert_array_equal(scaled[own], wanted)
    changed = np.where(folds == 0, (targets + 1) % 3, targets)
    np.testing.assert_array_equal(crossfit(changed, shares, folds)[folds == 0], scaled[folds == 0])
    np.testing.assert_array_equal(crossfit(targets, shares, np.zeros(300)), shares)


@pytest.mark.parametrize("sureness", [0.4, 3.0])
def test_calibration_makes_the_error_small(sureness):
    targets, shares = answers(4, n=3000, n_classes=2, sureness=sureness)
    after = crossfit(targets, shares, np.arange(3000) % 5)
    assert calibration_error(targets, shares) > 0.1
    assert calibration_error(targets, after) < 0.03  # chance: about 0.8 sqrt(10 * 0.15 / 3000)


@pytest.mark.parametrize("n", [20, 280])
def test_true_probabilities_err_more_than_chance_allows_once_in_twenty(n):
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.6, 1.0, n)
    shares = np.stack([sure, 1 - sure], axis=1).astype(np.float32)
    limit = error_by_chance(shares, [str(i) for i in range(n)])
    errors = [calibration_error(rng.random(n) >= sure, shares) for _ in range(1000)]
    assert np.mean(np.array(errors) > limit) == pytest.approx(0.05, abs=0.03)


def test_several_seeds_and_clips_of_a_source_leave_as_much_to_chance():
    sure = np.linspace(0.6, 0.99, 30)
    shares = np.stack([sure, 1 - sure], axis=1).astype(np.float32)
    sources = [str(i) for i in range(30)]
    once = error_by_chance(shares, sources)
    assert error_by_chance(np.tile(shares, (3, 1)), sources * 3) == pytest.approx(once)
    assert error_by_chance(shares, ["a"] * 30) > once
    assert math.isnan(error_by_chance(shares[:0], []))


def test_the_error_by_hand():
    # Ten bins of 0.05 from 0.5: 0.55 is in the first, which holds its upper end, 0.56 and 0.6 in
    # the second, 1.0 in the last. One of three answers below 0.6 is right, and both of 1.0.
    top = np.array([0.55, 0.56, 0.6, 1.0, 1.0])
    shares, targets = np.stack([top, 1 - top], axis=1), np.array([1, 0, 1, 0, 0])
    bins = calibration.reliability(targets, shares)
    assert [b["n"] for b in bins] == [1, 2, 2]
    assert [b["accuracy"] for b in bins] == [0, 0.5, 1]
    np.testing.assert_allclose([b["confidence"] for b in bins], [0.55, 0.58, 1])
    np.testing.assert_allclose([b["low"] for b in bins], [0.5, 0.55, 0.95])
    np.testing.assert_allclose([b["high"] for b in bins], [0.55, 0.6, 1])
    assert calibration_error(targets, shares) == pytest.approx((0.55 + 2 * 0.08) / 5)
    json.dumps(bins)


def test_the_bins_are_those_of_scikit_learn():
    # The top probability of two classes, stretched from [1/2, 1] to scikit-learn's [0, 1].
    targets, shares = answers(5, n=500, n_classes=2, sureness=2)
    confidence = shares.max(axis=1).astype(np.float64)
    right = shares.argmax(axis=1) == targets
    accuracies, stretched = calibration_curve(right, 2 * confidence - 1, n_bins=10)
    bins = calibration.reliability(targets, shares)
    np.testing.assert_allclose([b["accuracy"] for b in bins], accuracies)
    np.testing.assert_allclose([2 * b["confidence"] - 1 for b in bins], stretched)
    assert sum(b["n"] for b in bins) == 500


def test_nothing_has_a_defined_answer():
    nothing, shares = np.zeros(0, np.int64), np.zeros((0, 2), np.float32)
    assert calibration.reliability(nothing, shares) == []
    assert math.isnan(calibration_error(nothing, shares))
    assert scale(shares, 2.0).shape == crossfit(nothing, shares, nothing).shape == (0, 2)


def test_a_calibration_survives_json():
    found = Calibration(0.7, 2)
    assert Calibration.from_dict(json.loads(json.dumps(found.as_dict()))) == found


@pytest.mark.parametrize("value", [0, -1, 0.049, 20.1, math.nan, math.inf, "1", None, True])
def test_no_other_temperatures_are_taken(value):
    with pytest.raises(ValueError, match="segment_temperature"):
        Calibration.from_dict({"clip_temperature": 1.0, "segment_temperature": value})


@pytest.mark.parametrize("values", [None, [], {}, {"clip_temperature": 1}, {"temperature": 1}])
def test_no_other_parts_are_taken(values):
    with pytest.raises(ValueError, match="must hold"):
        Calibration.from_dict(values)
