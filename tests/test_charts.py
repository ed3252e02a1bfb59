import base64
import io

import numpy as np
import pytest
import soundfile as sf
from PIL import Image
from sklearn.metrics import auc

from sample_results import LABELS, baseline, crossval_metrics
from stapes.pages import charts, confusions, layer_cards, listening, media, result_charts, verdict
from test_plots import make_explanation


def decode(address):
    return io.BytesIO(base64.b64decode(address.split(",")[1]))


def points(line):
    """Corners of a drawn line in percent, upwards."""
    pairs = (pair.split(",") for pair in line.points.split())
    return [(float(x) / 10, 100 - float(y) / 10) for x, y in pairs]


def test_a_picture_tells_its_numbers_by_opacity():
    shares = np.array([[0, 0.5, 1], [0.25, np.nan, 2]])
    image = Image.open(decode(media.picture_uri(shares, colour="#7d62c9"))).convert("RGBA")
    pixels = np.asarray(image)
    np.testing.assert_array_equal(pixels[..., 3], [[0, 128, 255], [64, 0, 255]])
    assert (pixels[..., :3] == [0x7D, 0x62, 0xC9]).all()


@pytest.mark.parametrize("sample_rate", [8000, 16_000, 44_100])
def test_sound_in_a_page_is_the_sound_itself(sample_rate):
    waveform = np.random.default_rng(0).uniform(-1.2, 1.2, 4001).astype(np.float32)
    address = media.audio_uri(waveform, sample_rate=sample_rate)
    assert address.startswith("data:audio/flac;base64,")
    heard, rate = sf.read(decode(address), dtype="float32")
    assert rate == sample_rate
    assert np.abs(heard - np.clip(waveform, -1, 1)).max() < 2 / 32768


@pytest.mark.parametrize("length", [1, 7, 50, 60])
def test_the_loudest_stretch_has_the_most_energy_of_all(length):
    waveform = np.random.default_rng(length).normal(0, 1, 50).astype(np.float32)
    start = listening.loudest_start(waveform, length=length)
    energies = [np.square(waveform[i : i + length]).sum() for i in range(max(1, 51 - length))]
    assert energies[start] == pytest.approx(max(energies))


@pytest.mark.parametrize("hertz", [200, 1000, 3000, 7900])
def test_a_tone_is_brightest_in_its_own_row(hertz):
    t = np.arange(8000) / 16_000
    shares = listening.spectrogram(np.sin(2 * np.pi * hertz * t).astype(np.float32), n_rows=32)
    assert shares.shape[0] == 32 and shares.min() >= 0 and shares.max() == 1
    loudest_row = 31 - shares[:, shares.shape[1] // 2].argmax()  # from below
    assert loudest_row * 250 <= hertz <= (loudest_row + 1) * 250


@pytest.mark.parametrize("n_samples", [0, 1, 100, 5000])
def test_silence_and_short_recordings_have_a_spectrogram(n_samples):
    silence = np.zeros(n_samples, np.float32)
    shares = listening.spectrogram(silence)
    assert shares.shape[0] == 64 and shares.shape[1] >= 1 and not shares.any()
    assert listening.peak_db(silence) == float("-inf")
    assert listening.outline(silence, n_columns=9, height=10).count("M") == min(9, n_samples)


def test_an_outline_reaches_as_far_as_the_samples():
    waveform = np.array([0.0, 0.5, -0.25, 0.0], np.float32)
    path = listening.outline(waveform, n_columns=4, height=40, full_scale=True)
    assert path == "M.5 19.5V20.5M1.5 10V20.5M2.5 19.5V25M3.5 19.5V20.5"
    assert "M1.5 0V20.5" in listening.outline(waveform, n_columns=4, height=40)


def test_an_axis_has_round_ticks_at_their_places():
    axis = charts.make_axis(0.13, 2.4, words="{:g}".format)
    assert [words for _, words in axis.ticks] == ["0.5", "1", "1.5", "2"]
    assert axis.place(0.13) == 0 and axis.place(9) == 100
    assert axis.place(1.265) == pytest.approx(50)
    assert dict(axis.ticks) == {axis.place(v): f"{v:g}" for v in (0.5, 1, 1.5, 2)}
    assert charts.make_axis(3, 3, words=str).place(3) == 0  # an axis of one value
    assert (charts.share_axis(0.534, 0.98).low, charts.share_axis(0.534, 0.98).high) == (0.5, 1)


def test_a_line_keeps_its_corners_and_drops_what_lies_between():
    x = y = charts.share_axis()
    steps = [(0, 0), (0, 0.25), (0, 0.5), (0.1, 0.5), (0.5, 0.5), (float("nan"), 1), (1, 1)]
    line = charts.draw_line(steps, x=x, y=y)
    assert points(line) == [(0, 0), (0, 50), (50, 50), (100, 100)]
    back = charts.draw_line([(0, 0), (1, 0), (0.5, 0)], x=x, y=y)
    assert points(back) == [(0, 0), (100, 0), (50, 0)]


def test_model_and_baselines_stand_on_one_axis():
    metrics = crossval_metrics()
    table = result_charts.comparison(metrics)
    ours, *others = table.rows
    assert [row.ours for row in table.rows] == [True] + 5 * [False]
    assert (ours.place, ours.low, ours.high) == tuple(map(table.axis.place, (0.961, 0.93, 0.98)))
    for row, given in zip(others, metrics["baselines"], strict=False):
        assert row.name == given["name"]
        assert row.place == table.axis.place(given["clips"]["accuracy"])
    assert result_charts.comparison({"clips": metrics["clips"]}) is None


def test_a_baseline_that_is_ahead_is_said_to_be():
    metrics = crossval_metrics()
    metrics["baselines"] = [baseline("MFCC statistics + SVM", 0.99, beaten=False)]
    note = result_charts.comparison(metrics).rows[1].note.replace("\u00a0", " ")
    assert note == "2.9 points ahead (0 to 6), p = 0.4: too close to call"
    metrics["baselines"][0]["difference"] |= {"interval": [-0.05, -0.01], "p_value": 0.01}
    note = result_charts.comparison(metrics).rows[1].note
    assert note.endswith("better than this model")


def test_roc_curves_are_drawn_whole_and_their_areas_are_right():
    metrics = crossval_metrics()
    rates = metrics["roc"]["dog"]
    guessing, curve = result_charts.roc(metrics).lines
    assert points(guessing) == [(0, 0), (100, 100)]
    assert points(curve)[-1] == (100, 100)
    area = auc(rates["false_positives"], rates["true_positives"])
    assert curve.label == f"dog: area {area:.3f}"


def test_of_many_roc_curves_the_worst_are_named():
    classes = [f"c{i}" for i in range(12)]
    rate = np.linspace(0, 1, 50)
    metrics = {"classes": classes, "roc": {
        c: {"false_positives": rate.tolist(), "true_positives": (rate ** (0.1 + 0.02 * i)).tolist()}
        for i, c in enumerate(classes)
    }}  # fmt: skip
    named = [line.label.split(":")[0] for line in result_charts.roc(metrics).lines if line.label]
    assert sorted(named) == sorted(["guessing", *classes[-result_charts.MAX_CURVES :]])


def test_reliability_shows_every_filled_bin_before_and_after():
    metrics = crossval_metrics()
    given = metrics["calibration"]["after"]
    given[0] |= {"n": 0, "accuracy": None, "confidence": None}
    chart = result_charts.reliability(metrics)
    assert len(chart.dots) == 10 + 9
    last = chart.dots[-1]
    assert (last.left, last.bottom) == (chart.x.place(0.975), chart.y.place(given[-1]["accuracy"]))
    assert last.label == "calibrated" and chart.dots[9].label == "as trained"
    bins = result_charts.bins(metrics)
    assert [b.n for b in bins] == [b["n"] for b in given[1:]]
    assert bins[-1].height == 100 and bins[0].left == chart.x.place(given[1]["low"])


def test_the_chosen_point_of_acceptance_is_where_it_was_measured():
    chart = result_charts.acceptance(crossval_metrics())
    (chosen,) = chart.dots
    assert (chosen.left, chosen.bottom) == (95, chart.y.place(0.092))
    unmeasured = {"acceptance": {"coverage": 0.95, "foreign": None}}
    assert result_charts.acceptance(unmeasured) is None


def test_learning_marks_the_kept_epoch_and_draws_what_there_is():
    rows = [{"epoch": i, "loss": 1 / i, "validation_loss": abs(i - 3)} for i in range(1, 6)]
    chart = result_charts.learning(rows, "loss", 3)
    (kept,) = chart.dots
    assert kept.label == "kept: epoch 3" and kept.left == chart.x.place(3) == 50
    alone = result_charts.learning([{"epoch": 1, "loss": 0.5}], "loss", None)
    assert len(alone.lines) == 1 and alone.dots == ()
    assert result_charts.learning(rows, "accuracy", 3) is None
    assert result_charts.learning([], "loss", None) is None


def test_confusions_are_shares_of_their_rows_and_the_largest_are_named():
    metrics = {"clips": {"n": 29, "recall": {"a": 0.9, "b": float("nan"), "c": 0.5},
                         "confusion": [[18, 2, 0], [0, 0, 0], [0, 19, 19]]}}  # fmt: skip
    found = confusions.confusion(metrics)
    assert found.n_repeats == 2 and found.totals == (20, 0, 38)
    assert found.rows[2] == ((0, 0), (19, 0.5), (19, 0.5))
    assert found.largest == (("c", "b", 19), ("a", "b", 2))
    assert found.recall == (0.9, None, 0.5)


def test_layers_lie_at_their_time_and_bars_add_up_to_the_evidence():
    explanation = make_explanation(LABELS)
    (stack,) = layer_cards.stacks({"dog": explanation})
    seconds = explanation.segment.times_seconds[3] - explanation.segment.start_seconds
    layer = stack.layers[2]
    middle = np.asarray(seconds) / explanation.config.segment_seconds * 100
    assert layer.left < middle[0] < layer.left + layer.width / len(middle)
    assert layer.left + layer.width == pytest.approx(middle[-1] + layer.width / len(middle) / 2, 1)
    added = explanation.segment.frame_contributions[0]
    towards = added if explanation.label == "dog" else -added
    assert [path.count("M") for path, _ in stack.bars] == [sum(towards > 0), sum(towards < 0)]


def state(metrics, anchor):
    return {c.anchor: c.state for c in verdict.checks(metrics)}.get(anchor)


def test_every_check_of_a_good_result_passes_but_foreign_sounds():
    metrics = crossval_metrics()
    states = [check.state for check in verdict.checks(metrics)]
    assert states == ["good"] * 5 + ["doubt", "good"]
    assert verdict.alarm(metrics) == ""
    metrics["acceptance"]["foreign"]["called_after"] = 0.05
    assert {check.state for check in verdict.checks(metrics)} == {"good"}


@pytest.mark.parametrize(
    ("names", "expected", "alarming"),
    [
        (["loudness only"], "bad", "loudness"),
        (["majority class"], "bad", "most frequent class"),
        (["MFCC statistics + SVM"], "doubt", ""),
        ([], "good", ""),
    ],
)
def test_baselines_that_are_not_beaten_are_named(names, expected, alarming):
    metrics = crossval_metrics()
    for row in metrics["baselines"]:
        row["difference"]["beaten"] = row["name"] not in names
    assert state(metrics, "baselines") == expected
    (words,) = (c.words for c in verdict.checks(metrics) if "rule" in c.title)
    assert all(name in words for name in names)
    assert alarming in verdict.alarm(metrics) and bool(verdict.alarm(metrics)) == bool(alarming)


def test_a_rule_that_is_clearly_better_is_told_in_red():
    metrics = crossval_metrics()
    best = baseline("MFCC statistics + SVM", 0.99, beaten=False)
    best["difference"] |= {"interval": [-0.05, -0.01], "p_value": 0.01}
    metrics["baselines"] = [baseline("loudness only", 0.5), best]
    assert state(metrics, "baselines") == "bad"
    (words,) = (c.words for c in verdict.checks(metrics) if "rule" in c.title)
    assert "Worse than MFCC statistics + SVM (99.0" in words and "loudness" not in words
    assert verdict.alarm(metrics) == ""  # it may be trusted, though the other is better
    metrics["baselines"][0] = baseline("loudness only", 0.99, beaten=False)
    metrics["baselines"][0]["difference"] |= {"interval": [-0.05, -0.01], "p_value": 0.01}
    assert "worse than loudness" in verdict.alarm(metrics)


@pytest.mark.parametrize(
    ("interval", "p_value", "words"),
    [
        ([0.01, 0.03], 0.01, "memory, not skill"),
        ([-0.01, 0.05], 0.3, "within chance"),
        ([-0.3, -0.1], 0.001, "an honest one says 96.1\u00a0%."),
    ],
)
def test_a_leak_is_called_memory_only_beyond_chance(interval, p_value, words):
    metrics = crossval_metrics()
    metrics["by_file"]["difference"] = {"interval": interval, "p_value": p_value}
    assert words in verdict.checks(metrics)[0].words
    assert ("chance" in words) == ("chance" in verdict.checks(metrics)[0].words)


@pytest.mark.parametrize(
    ("error", "by_chance", "expected"),
    [(0.02, 0.04, "good"), (0.02, 0.2, "unknown"), (0.08, 0.1, "unknown"), (0.12, 0.1, "doubt")],
)
def test_a_calibration_is_judged_beside_what_chance_makes(error, by_chance, expected):
    metrics = crossval_metrics()
    metrics["calibration"] |= {"error_after": error, "error_by_chance": by_chance}
    assert state(metrics, "calibration") == expected


@pytest.mark.parametrize(
    ("called", "interval", "expected"),
    [(0.0, [0.0, 0.05], "good"), (0.0, [0.0, 0.71], "unknown"), (0.3, [0.2, 0.4], "doubt")],
)
def test_a_few_foreign_sounds_prove_nothing(called, interval, expected):
    metrics = crossval_metrics()
    metrics["acceptance"]["foreign"] |= {"called_after": called, "interval": interval}
    assert state(metrics, "acceptance") == expected


def test_few_sources_are_never_enough():
    metrics = crossval_metrics()
    found = {c.title for c in verdict.checks(metrics)}
    assert "Enough recordings" in found
    metrics["clips"]["n_sources"] = 9
    assert "Too few recordings" in {c.title for c in verdict.checks(metrics)}


def test_all_classes_that_are_missed_are_named():
    metrics = crossval_metrics()
    metrics["clips"]["recall"] = {"a": 0.9, "b": 0.4, "c": 0.0}
    (words,) = (c.words for c in verdict.checks(metrics) if "missed" in c.title)
    assert "2 of 3 classes are found" in words and "c 0" in words and "b 40" in words


def test_a_wide_interval_a_missed_class_and_a_poor_calibration_raise_doubt():
    metrics = crossval_metrics()
    metrics["clips"] |= {"interval": [0.6, 0.9], "recall": {"cat": 1.0, "dog": 0.4}}
    metrics["calibration"]["error_after"] = 0.2
    metrics["audit"]["counts"] = {"two labels": 1}
    found = {check.title: check.state for check in verdict.checks(metrics)}
    for title in ("Too few recordings", "A class is missed", "Probabilities are off"):
        assert found[title] == "doubt"
    assert state(metrics, "audit") == "doubt"


@pytest.mark.parametrize(
    ("counts", "expected", "words"),
    [
        ({}, "good", "no copies and no overlaps"),
        ({"overlap": 2}, "good", "2 × overlap"),
        ({"overlap": 2, "two folds": 1}, "doubt", "2 × overlap and 1 × in two folds"),
        ({"same audio": 1, "two labels": 1}, "doubt", "1 × under two labels"),
    ],
)
def test_the_audit_raises_doubt_where_recordings_contradict(counts, expected, words):
    audit = {"n_files": 9, "n_sources": 7, "counts": counts}
    (check,) = verdict.checks({"audit": audit})
    assert check.state == expected and words in check.words


def test_without_a_split_by_file_the_sources_speak_for_the_split():
    metrics = crossval_metrics() | {"by_file": None}
    first = verdict.checks(metrics)[0]
    assert (first.state, first.title) == ("good", "Honest split")
    assert "no source was both" in first.words
    first = verdict.checks(metrics | {"kind": "evaluate"})[0]
    assert first.state == "unknown"


def test_the_worth_of_ninety_percent_is_read_from_its_bin():
    filled = {"low": 0.9, "high": 0.95, "confidence": 0.93, "accuracy": 0.8, "n": 20}
    few = {**filled, "n": 3}
    fullest = {"low": 0.95, "high": 1.0, "confidence": 0.99, "accuracy": 0.97, "n": 500}
    assert "says 93" in verdict.when_it_says([filled, fullest])
    assert "says 99" in verdict.when_it_says([few, fullest])
    assert verdict.when_it_says([]) == ""
