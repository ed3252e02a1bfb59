"""The report of a run: what it shows of which results."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile as sf

from page_reader import Page, check_standalone
from sample_results import baseline, crossval_metrics
from stapes.pages import cards, report
from stapes.pages.wording import percent
from test_plots import make_explanation

NAMES = [f"{label}/{label}_{i}.wav" for i in range(20) for label in ("cat", "dog")]


def tone(name, *, seconds=1.5):
    """A decaying tone whose pitch depends on the name."""
    t = np.arange(int(seconds * 16_000)) / 16_000
    return (np.sin(2 * np.pi * (300 + 10 * len(name)) * t) * np.exp(-t)).astype(np.float32)


def history(n=12):
    return [
        {"epoch": i, "loss": 1 / i, "accuracy": 1 - 0.5 / i, "validation_loss": 0.3 + 1 / i}
        | {"validation_accuracy": 0.9 - abs(i - 8) / 50}
        for i in range(1, n + 1)
    ]


def render(metrics, **more):
    return report.render_report(metrics, title="RUN", **more)


def sections(page):
    return set(page.ids) - {i for i in page.ids if re.search(r"-\d+$", i)}


def test_the_report_says_which_classes_refuse_nothing():
    metrics = crossval_metrics(NAMES)
    metrics["acceptance"]["thresholds"] = {"cat": 0.0, "dog": 0.87}
    page = check_standalone(render(metrics))
    assert page.has("A threshold takes 19 sources that were called the class.")
    assert page.has("cat off 94.6 %") and page.has("dog 87.0 % 94.6 %")


def test_where_no_class_has_a_threshold_the_report_says_just_that():
    metrics = crossval_metrics(NAMES)
    metrics["acceptance"]["thresholds"] = {"cat": 0.0, "dog": 0.0}
    page = Page(render(metrics))
    assert page.has("No class has a threshold yet, so nothing will be flagged.")
    assert not page.has("reach the threshold") and not page.has("cat off")


def test_the_report_shows_the_numbers_of_the_metrics():
    metrics = crossval_metrics(NAMES)
    page = check_standalone(render(metrics, history=history(), recording=tone))
    clips, found = metrics["clips"], metrics["acceptance"]["foreign"]
    for words in (
        f"{percent(clips['accuracy'])} of 280 clips right".replace("\u00a0", " "),
        "280 clips from 249 sources, each judged by networks that never heard its source",
        "the true share is likely 93 to 98 % (95 % interval)",
        "A split by file would have said 97.9 %; an honest one says 96.1 %.",
        "clips, majority vote 95.6 %",
        "single segments (1,931) 87.4 %",
        "clips, classes counted alike 95.1 %",
        "area under the ROC curve 0.987",
        "parameters 3,041",
        "loudness only 29.0 points behind (26 to 32), p < 0.001",
        "off by 7.1 % on average; after one number was fitted (the temperature, 0.71) it is 2.1 %",
        "When it says 92 %, it is right 92 % of the time (55 clips).",
        f"Of {found['n']} foreign sounds, 9.2 % are then taken for one of its classes",
        "rooster 40 100 % 25 %",
        "fold 1 56 clips; segments 80.0 % 92.0 %",
        "8 of 11 mistakes",
        "just hard. 8 of 11 are here; suspicious.csv",
        "280 files from 249 sources",
        "28 × overlap and 2 × same audio",
        "level −31.2 dB −18.4 dB −5.2 dB",
        "1 file left out",
        "dog/dog_99.wav empty file",
        "learning rate 0.01",
        "Took 702 s with stapes 0.1.0",
    ):
        assert page.has(words), words
    assert sections(page) == {
        "baselines", "mistaken", "calibration", "acceptance", "learning", "repeats", "mistakes",
        "labels", "audit", "examples", "profile",
    }  # fmt: skip


def test_the_confusion_matrix_is_a_table_of_the_counts():
    metrics = crossval_metrics()
    metrics["clips"]["confusion"] = [[166, 1], [3, 111]]
    page = Page(render(metrics))
    assert page.has("taken for really cat dog cat 166 1 dog 3 111")
    assert page.has("cat 96 % of 167")


@pytest.mark.parametrize("key", [*sorted(set(crossval_metrics()) - {"clips"}), None])
@pytest.mark.parametrize("gone", ["absent", "null"])
def test_what_was_not_measured_is_left_out(key, gone):
    metrics = crossval_metrics(NAMES)
    for name in [key] if key else list(metrics):
        if gone == "null":
            metrics[name] = None
        else:
            del metrics[name]
    page = check_page(render(metrics))
    own = {"baselines": "baselines", "calibration": "calibration", "acceptance": "acceptance",
           "mistakes": "mistakes", "suspicious": "labels", "audit": "audit", "profile": "profile",
           None: "mistaken"}  # fmt: skip
    if key != "baselines":  # the split by file alone is worth a chart
        assert own.get(key) not in page.ids
    assert not re.search(r"\bnan\b|\bNone(?! of)", page.text)


def check_page(text):
    """What must hold of a page even if it holds neither sounds nor links."""
    page = Page(text)
    assert "script" not in page.tags and len(page.ids) == len(set(page.ids))
    assert all(a.startswith(("data:", "#")) for a in page.addresses)
    assert all(a[1:] in page.ids for a in page.addresses if a.startswith("#"))
    return page


def test_numbers_of_an_older_run_still_make_a_page():
    part = {"accuracy": 0.93, "balanced_accuracy": 0.91, "n": 44, "roc_area": 0.97,
            "recall": {"cat": 0.9, "dog": 0.95}, "confusion": [[20, 2], [1, 21]]}  # fmt: skip
    clips = {**part, "interval": [0.87, 0.97], "majority_accuracy": 0.91}
    metrics = {"parameters": 3041, "classes": ["cat", "dog"], "segments": part, "clips": clips}
    page = check_page(render(metrics, history=history()))
    assert page.has("93.0 % of 44 clips right") and page.has("None of these clips was trained on.")
    assert sections(page) == {"mistaken", "learning"}


def test_nothing_held_out_is_said_and_not_made_up():
    nothing = {"accuracy": float("nan"), "balanced_accuracy": float("nan"), "n": 0}
    page = check_page(render({"parameters": 3041, "segments": nothing, "clips": nothing}))
    assert page.has("not known how good") and page.has("not measured")
    assert "figure" not in page.tags and not page.has("nan")


def test_nan_anywhere_is_not_measured():
    def spoil(value):
        if isinstance(value, dict):
            return {k: spoil(v) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v) for v in value]
        return float("nan") if isinstance(value, float) else value

    page = check_page(render(spoil(crossval_metrics(NAMES)), recording=tone))
    assert page.has("not measured")
    assert not re.search(r"\bnan\b", page.text.lower())


def test_a_model_that_does_not_beat_loudness_is_told_in_red():
    metrics = crossval_metrics()
    assert 'class="alarm"' not in render(metrics)
    metrics["baselines"][1] = baseline("loudness only", 0.95, beaten=False)
    text = render(metrics)
    assert 'class="alarm" role="alert"' in text and 'class="bad"' in text
    assert Page(text).has("It is not clearly better than loudness")
    assert Page(text).has("which gets 95.0 % of clips; this model gets 96.1 %.")
    assert Page(text).has("There may be too few recordings to show more.")


def test_warnings_are_shown_before_everything_else():
    text = render(crossval_metrics() | {"warnings": ["two of <b>dog</b> are the same"]})
    page = Page(text)
    assert page.has("What to know first two of <b>dog</b> are the same")
    assert text.index("two of &lt;b&gt;") < text.index('class="checks"')


HOSTILE = [
    "<script>alert(1)</script>.wav",
    '"><img src=http://evil.example onerror=alert(1)>.wav',
    "' onload='alert(1)",
    "</style></title><b>bold</b>",
    "broken \udcff and \u202e turned",
    "чай 茶 🐈 \n two lines",
    "long/" + "x" * 250 + ".wav",
    "{{ 7 * 7 }}{% include 'base.html' %}",
]


def test_names_are_only_ever_text():
    names, classes = HOSTILE * 3, tuple(HOSTILE)
    metrics = crossval_metrics(names, classes=classes)
    metrics |= {"settings": {HOSTILE[0]: HOSTILE[1]}, "data": HOSTILE[0], "warnings": HOSTILE}
    metrics["skipped"] = [{"name": name, "reason": name} for name in HOSTILE]
    metrics["acceptance"]["foreign"]["by_label"] = {n: {"n": 1} for n in HOSTILE}
    metrics["audit"]["counts"] = dict.fromkeys(HOSTILE, 1)
    metrics["baselines"][0]["name"] = HOSTILE[0]
    explanation = make_explanation(classes)
    text = report.render_report(
        metrics, title=HOSTILE[3], recording=tone, explanations={HOSTILE[0]: explanation}
    )
    text.encode()  # no lone surrogates
    page = check_standalone(text)
    assert "<b>bold" not in text
    assert page.tags.count("title") == page.tags.count("style") == 1
    assert page.has("<script>alert(1)</script>.wav") and page.has("{{ 7 * 7 }}")
    assert page.has("broken ? and")


def test_thirty_classes_and_a_thousand_mistakes_stay_readable_and_small():
    classes = tuple(f"species {i} with a rather long name" for i in range(30))
    names = [f"folder/{i:04}.wav" for i in range(3000)]
    metrics = crossval_metrics(names, classes=classes)
    metrics["mistakes"] = metrics["mistakes"] * 100
    rng = np.random.default_rng(0)

    def noise(_name):  # what FLAC cannot make smaller
        return rng.uniform(-1, 1, 10 * 16_000).astype(np.float32)

    text = render(metrics, recording=noise, history=history(200))
    page = check_standalone(text)  # under 5 MB
    assert page.has("8 of 1,100 mistakes")
    assert page.tags.count("audio") == 8 + 4 + 2 * 3  # four of the doubtful labels are mistakes
    assert page.has("The other 1,480 are in metrics.json")


def test_only_the_recordings_that_are_shown_are_asked_for():
    metrics, asked = crossval_metrics(NAMES), []

    def recording(name):
        asked.append(name)
        return tone(name)

    render(metrics, recording=recording)
    assert len(asked) == len(set(asked))
    rows = [*metrics["mistakes"][:8], *metrics["suspicious"][:8]]
    shown = {row["name"] for row in rows}
    shown |= {name for finding in metrics["audit"]["findings"][:3] for name in finding["files"]}
    shown |= {name for names in metrics["examples"].values() for name in names}
    assert set(asked) == shown


def test_rows_stay_where_recordings_cannot_be_read():
    page = check_page(render(crossval_metrics(NAMES), recording=lambda name: None))
    assert "audio" not in page.tags and page.has("could not be read here")
    assert all(page.has(name) for name in NAMES[:8])


def sounds(text):
    addresses = [a for a in Page(text).addresses if a.startswith("data:audio")]
    return [sf.read(io.BytesIO(base64.b64decode(a.split(",")[1])))[0] for a in addresses]


def test_players_hold_the_loudest_stretch_of_what_is_too_long():
    waveform = np.zeros(20 * 16_000, np.float32)
    waveform[9 * 16_000 : 11 * 16_000] = tone("x", seconds=2)
    metrics = {"mistakes": crossval_metrics(NAMES)["mistakes"][:1], "classes": ["cat", "dog"]}
    text = render(metrics, recording=lambda name: waveform)
    (played,) = sounds(text)
    assert len(played) == cards.PLAYED_SECONDS * 16_000
    assert np.square(played).sum() == pytest.approx(np.square(waveform).sum(), rel=1e-3)
    assert Page(text).has("20.0 s, played: the loudest 4 s from")


def test_players_at_a_high_rate_hold_less_time_so_that_the_page_stays_small():
    rows = {"mistakes": crossval_metrics(NAMES)["mistakes"][:1]}
    text = render(rows, recording=lambda name: tone(name, seconds=9), sample_rate=48_000)
    assert len(sounds(text)[0]) == cards.PLAYED_SAMPLES
    assert Page(text).has("3.0 s, played: the loudest 1.33 s from")


def test_a_recording_among_the_mistakes_is_played_once():
    rows = crossval_metrics(NAMES)["mistakes"][:2]
    text = render({"mistakes": rows, "suspicious": rows}, recording=tone)
    assert len(sounds(text)) == 2
    assert '<a href="#mistake-1"' in text and '<a href="#mistake-2"' in text


def test_overlapping_recordings_are_laid_on_one_time_axis():
    source = np.random.default_rng(0).uniform(-1, 1, 4 * 16_000).astype(np.float32)
    first, second = source[: 3 * 16_000], source[16_000:]
    finding = {"kind": "overlap", "files": ["a", "b"], "offset_seconds": 1.0, "labels": ["x", "y"]}
    text = render({"audit": {"n_files": 2, "n_sources": 1, "findings": [finding]}},
                  recording={"a": first, "b": second}.get)  # fmt: skip
    assert 'style="left: 0.0%; width: 75.0%"' in text
    assert 'style="left: 25.0%; width: 75.0%"' in text
    assert text.count('class="common" style="left: 25.0%; width: 50.0%"') == 2
    heard = sounds(text)
    np.testing.assert_array_equal(heard[0][:32_000], heard[1][:32_000])


def test_layers_are_drawn_for_a_few_classes():
    classes = ("cat", "dog", "bird", "frog", "bat", "bee")
    explanation = make_explanation(classes)
    text = render({}, explanations=dict.fromkeys(classes, explanation))
    assert text.count('class="stack"') == 4
    assert text.count('<img src="data:image/png') == 4 * len(explanation.segment.activations)
