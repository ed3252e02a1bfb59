"""What a result says of itself, from answers made up: calibration, thresholds, doubts, seeds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stapes import calibration
from stapes.account import accept, account, assess, calibrate, suspicions
from stapes.calibration import Calibration
from stapes.checkpoint import Model
from stapes.clips import Clip
from stapes.config import ModelConfig
from stapes.inference import SegmentOutputs
from stapes.measurement import Measured, summarise
from tones import RATE

CONFIG = ModelConfig(("cat", "dog"))


def answers(logits, targets, *, sources=None, none=-np.inf) -> Measured:
    """Clips of one segment each, with these logits of a dog."""
    rows = range(len(logits))
    clips = tuple(
        Clip(Path(f"{i}.wav"), f"{i}.wav", "dog" if targets[i] else "cat", f"s{i}") for i in rows
    )
    if sources is not None:
        clips = tuple(replace(c, source=s) for c, s in zip(clips, sources, strict=True))
    outputs = tuple(
        SegmentOutputs(
            np.zeros(1, np.int64),
            np.float32([[logit]]),
            np.float32([none if np.isscalar(none) else none[i]]),
            np.ones(1, np.float32),
            RATE,
        )
        for i, logit in enumerate(logits)
    )
    return Measured(CONFIG, clips, np.asarray(targets), outputs)


def test_too_sure_answers_are_calibrated():
    rng = np.random.default_rng(0)
    true_logits = rng.normal(0, 2, 2000)
    targets = (rng.random(2000) < 1 / (1 + np.exp(-true_logits))).astype(int)
    fitted, told = calibrate(answers(3 * true_logits, targets))
    assert fitted.clip_temperature == pytest.approx(3, rel=0.15)
    assert fitted.segment_temperature == pytest.approx(fitted.clip_temperature)
    assert told["error_after"] < 0.03 < 0.08 < told["error_before"]
    assert sum(bin_["n"] for bin_ in told["after"]) == 2000


def test_mistakes_are_all_listed_the_surest_first_with_calibrated_probabilities():
    logits = np.float64([3, -1, 1, -4, 2, -2])
    measured = answers(logits, [1, 1, 0, 1, 0, 0])
    found = account(measured, Calibration(clip_temperature=2.0))["mistakes"]
    assert [row["name"] for row in found] == ["3.wav", "4.wav", "1.wav", "2.wav"]
    assert [row["predicted"] for row in found] == ["cat", "dog", "cat", "dog"]
    wanted = 1 / (1 + np.exp(-np.abs(logits[[3, 4, 1, 2]]) / 2))
    np.testing.assert_allclose([row["probability"] for row in found], wanted, rtol=1e-5)


def test_the_roc_curve_of_two_classes_is_that_of_the_second():
    found = account(answers([-2.0, -1.0, 1.0, 2.0], [0, 1, 0, 1]), Calibration())["roc"]
    assert list(found) == ["dog"]
    points = zip(*found["dog"].values(), strict=True)
    assert {(0.0, 0.5), (0.5, 0.5), (0.5, 1.0)} <= set(points)


def test_a_majority_of_segments_is_counted_beside_the_mean():
    heard = answers([0.0], [1])
    logits, ones = np.float32([[1], [1], [-9]]), np.ones(3, np.float32)
    outputs = SegmentOutputs(np.arange(3), logits, -np.inf * ones, ones, 3 * RATE)
    clips = summarise(replace(heard, outputs=(outputs,)))["clips"]
    assert (clips["accuracy"], clips["majority_accuracy"]) == (0, 1)


def test_a_finished_model_is_judged_by_its_own_calibration():
    rng = np.random.default_rng(3)
    true_logits = rng.normal(0, 2, 2000)
    targets = (rng.random(2000) < 1 / (1 + np.exp(-true_logits))).astype(int)
    model = Model(CONFIG, {}, calibration=Calibration(clip_temperature=3.0))
    told = assess(model, answers(3 * true_logits, targets))["calibration"]
    assert told["error_after"] < 0.03 < 0.08 < told["error_before"]


def test_thresholds_keep_their_coverage_and_reject_what_none_claims():
    rng = np.random.default_rng(0)
    targets = np.tile([0, 1], 200)
    logits = np.where(targets == 1, 4.0, -4.0) + rng.normal(0, 1, 400)
    known = answers(logits, targets, none=rng.normal(-3, 1, 400))
    foreign = answers(rng.normal(0, 3, 100), -np.ones(100, int), none=rng.normal(6, 1, 100))
    fitted, told = accept(Measured.join([known, foreign]))
    assert all(0 < threshold < 1 for threshold in fitted.thresholds.values())
    assert all(0.9 <= share <= 1 for share in told["covered"].values())
    assert told["foreign"]["called_after"] < 0.05
    let_in = [share for _, share in told["foreign"]["curve"]]
    assert let_in == sorted(let_in)
    assert let_in[0] < let_in[-1]
    again = accept(Measured.join([known, foreign, foreign]))[1]["foreign"]
    assert again["n"] == told["foreign"]["n"] == 100


def test_answers_of_several_seeds_about_a_clip_count_once():
    rng = np.random.default_rng(1)
    true_logits = rng.normal(0, 2, 30)
    targets = (rng.random(30) < 1 / (1 + np.exp(-true_logits))).astype(int)
    once = answers(3 * true_logits, targets)
    thrice = Measured.join([once] * 3)
    fitted, told = calibrate(once)
    again, told_again = calibrate(thrice, n_repeats=3)
    assert again.clip_temperature == pytest.approx(fitted.clip_temperature)
    assert again.segment_temperature == pytest.approx(fitted.segment_temperature)
    assert calibrate(thrice)[0].clip_temperature != pytest.approx(fitted.clip_temperature)
    assert [bin_["n"] for bin_ in told_again["after"]] == [bin_["n"] for bin_ in told["after"]]
    assert told_again["error_after"] == pytest.approx(told["error_after"])


def test_calibration_is_judged_by_sources_that_it_was_not_fitted_on():
    targets = np.tile([0, 1], 10)
    logits = np.where(targets == 1, 4.0, -4.0)
    logits[3] = -4.0  # the others say that such answers are right
    measured = answers(logits, targets)
    fitted, told = calibrate(measured)
    shares = measured.clip_probabilities()
    seen = calibration.calibration_error(
        targets, calibration.scale(shares, fitted.clip_temperature)
    )
    assert told["error_after"] > seen + 0.01


def test_coverage_is_judged_by_sources_that_set_no_threshold():
    targets = np.tile([0, 1], 30)
    none = np.random.default_rng(2).normal(0, 4, 60)
    known = answers(np.where(targets == 1, 4.0, -4.0), targets, none=none)
    # Of so few sources none may be lost, so a threshold is the lowest score of those that set it;
    # but the lowest of a class is below all others'.
    assert accept(known)[1]["covered"] == {
        label: pytest.approx(29 / 30) for label in ("cat", "dog")
    }


def test_the_label_that_answers_contradict_is_the_first_to_look_at():
    targets = np.tile([0, 1], 20)
    logits = np.where(targets == 1, 3.0, -3.0)
    logits[7] = -6.0
    ranked, timelines = suspicions(answers(logits, targets), Calibration())
    assert [s.clip.name for s in ranked] == ["7.wav"]
    assert ranked[0].suggested == "cat"
    assert timelines[0].start_seconds.tolist() == [0]


def test_a_label_is_doubted_by_the_mean_of_all_seeds():
    targets = np.tile([0, 1], 20)
    logits = np.tile(np.where(targets == 1, 3.0, -3.0), (3, 1))
    logits[:, 7] = -6.0, 5.0, 5.0  # only the first seed doubts it
    logits[:, 9] = 2.0, -6.0, -6.0  # only the first does not
    measured = Measured.join([answers(seed, targets) for seed in logits])
    ranked, timelines = suspicions(measured, Calibration())
    assert [s.clip.name for s in ranked] == ["9.wav"]
    dog = (1 / (1 + np.exp(-logits[:, 9]))).mean()
    np.testing.assert_allclose(timelines[0].probabilities, [[1 - dog, dog]], atol=1e-5)
