import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile as sf

from stapes import __version__, report
from stapes.config import TrainingConfig, as_dict
from test_plots import LONG_NAMES, make_explanation, make_history


class Page(HTMLParser):
    """Everything in a page that could break it: tags, addresses, ids, and its plain text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.ids, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "srcset", "action", "poster"):
                self.addresses.append(value)
            assert not key.startswith("on"), (tag, key)
            if key == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.text += data + " "

    def has(self, words):
        return words in " ".join(self.text.replace("\u00a0", " ").split())


def check_standalone(text):
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert page.addresses
    assert all(a.startswith(("#", "data:")) for a in page.addresses)
    assert len(page.ids) == len(set(page.ids))
    assert all(a[1:] in page.ids for a in page.addresses if a.startswith("#"))
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(text.encode()) < 5_000_000
    assert page.tags.count("figcaption") == page.tags.count("figure")
    return page


@pytest.fixture(scope="module")
def explanation():
    return make_explanation()


@pytest.fixture(scope="module")
def folder(explanation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    report.write_explanation(folder, explanation, name="dog/dog_1.wav", model="cats-dogs")
    return folder


def test_explanation_writes_every_figure_twice_and_one_page(folder):
    names = [f"{n}.{e}" for n in ("contributions", "filters", "layers", "when")
             for e in ("png", "svg")]  # fmt: skip
    assert sorted(p.name for p in folder.iterdir()) == sorted([*names, "index.html"])


def test_the_page_of_a_clip_stands_alone_and_says_the_answer(folder, explanation):
    page = check_standalone((folder / "index.html").read_text())
    assert page.tags.count("figure") == 4
    assert page.has(f"{explanation.label} {100 * explanation.probability:.0f} %")
    assert page.has("dog/dog_1.wav") and page.has("Model cats-dogs")
    n, n_voting = len(explanation.starts), explanation.voting.sum()
    assert page.has(f"{n} overlapping segments of 0.25 s. {n_voting} of them are loud enough")
    assert page.has(f"make the logit {explanation.logits[0]:+.2f}".replace("-", "−"))


def played(text):
    (address,) = (a for a in Page(text).addresses if a.startswith("data:audio"))
    return sf.read(io.BytesIO(base64.b64decode(address.split(",")[1])), dtype="float32")


def test_the_player_plays_the_clip_itself(folder, explanation):
    heard, sample_rate = played((folder / "index.html").read_text())
    assert sample_rate == 16_000
    assert np.abs(heard - explanation.waveform).max() < 2 / 32768


def test_names_cannot_become_markup():
    explanation = make_explanation(LONG_NAMES[3:5], n_samples=900)
    text = report.render_explanation(explanation, name="<script>1</script>", model="\udcff<i>")
    page = check_standalone(text)
    text.encode()  # no lone surrogates
    assert "<b>bold" not in text and "&lt;b&gt;bold" in text
    assert page.has("<script>1</script>") and page.has("?<i>")


def test_a_short_clip_is_one_padded_segment_and_only_it_is_played():
    text = report.render_explanation(make_explanation(n_samples=900), name="short.wav")
    assert Page(text).has("one segment of 0.25 s; the clip is shorter and was padded")
    assert len(played(text)[0]) == 900


def test_a_long_clip_is_played_in_part_and_the_page_stays_small(monkeypatch):
    monkeypatch.setattr(report, "MAX_AUDIO_SAMPLES", 8000)
    text = report.render_explanation(make_explanation(n_samples=32_000), name="long.wav")
    assert Page(text).has("The first 0.5 of 2 seconds.")
    assert len(played(text)[0]) == 8000
    longest = np.zeros(960_000, np.float32)
    assert len(report._audio_uri(longest, sample_rate=16_000)) < 3_000_000


def make_metrics(classes, **more):
    matrix = np.full((len(classes), len(classes)), 1) + 20 * np.eye(len(classes), dtype=int)
    measured = {
        "accuracy": 0.928,
        "balanced_accuracy": 0.9125,
        "n": int(matrix.sum()),
        "roc_area": 0.973,
        "recall": dict.fromkeys(classes, 0.875),
        "confusion": matrix.tolist(),
    }
    clips = {**measured, "interval": [0.87, 0.97], "majority_accuracy": 0.9071}
    return {
        "parameters": 3041,
        "classes": list(classes),
        "segments": {**measured, "accuracy": 0.8432, "n": 1931},
        "clips": clips,
        "seconds": 48.2,
        "version": __version__,
        **more,
    }


def test_the_report_tells_all_there_is_to_tell():
    classes = ("cat", LONG_NAMES[3])
    metrics = make_metrics(
        classes,
        preset="classic",
        settings=as_dict(TrainingConfig()),
        best_epoch=8,
        skipped=[{"name": "dog/<i>.wav", "reason": "empty file"}],
        warnings=["two of <b>dog</b> are the same"],
    )
    clip = np.sin(np.arange(5000) / 9).astype(np.float32)
    rate = np.linspace(0, 1, 9)
    text = report.render_report(
        metrics,
        title="RUN",
        history=make_history(),
        curves={classes[1]: (rate, rate**0.3)},
        examples={label: [("<b>bold.wav", clip)] for label in classes},
    )
    page = check_standalone(text)
    assert page.tags.count("figure") == 6
    for words in (
        "92.8 % of 44 clips right",
        "expect 87 % to 97 %",
        "clips, majority vote 90.7 %",
        "single segments (1,931) 84.3 %",
        "clips, classes counted alike 91.2 %",
        "area under the ROC curve 0.973",
        "parameters 3,041",
        "1 file left out",
        "dog/<i>.wav empty file",
        "two of <b>dog</b> are the same",
        "kept epoch 8",
        "learning rate 0.01",
        f"Took 48 s with stapes {__version__}",
    ):
        assert page.has(words), words
    assert "<b>" not in text and "<i>" not in text


def test_a_cross_validation_lists_its_folds_and_seeds():
    part = {"accuracy": 0.9, "balanced_accuracy": 0.8, "n": 12}
    row = {"clips": part, "segments": part}
    metrics = make_metrics(LONG_NAMES, folds=[{"fold": 1, **row}], seeds=[{"seed": 0, **row}])
    page = check_standalone(report.render_report(metrics, title="five folds"))
    assert page.has("Each fold by itself") and page.has("Each seed by itself")
    assert page.has("1 90.0 % of 12 80.0 % 90.0 % of 12")


def test_nothing_held_out_is_said_and_not_made_up():
    nothing = {"accuracy": float("nan"), "balanced_accuracy": float("nan"), "n": 0}
    metrics = {"parameters": 3041, "segments": nothing, "clips": nothing}
    page = Page(report.render_report(metrics, title="RUN"))
    assert page.has("not known how good") and page.has("not measured")
    assert "figure" not in page.tags and not page.has("nan")
