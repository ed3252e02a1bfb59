"""The page that explains one clip."""

import base64
import io

import numpy as np
import pytest
import soundfile as sf

from page_reader import Page, check_standalone
from stapes.pages import clip, media
from test_plots import LONG_NAMES, make_explanation


@pytest.fixture(scope="module")
def explanation():
    return make_explanation()


@pytest.fixture(scope="module")
def folder(explanation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    clip.write_explanation(folder, explanation, name="dog/dog_1.wav", model="cats-dogs")
    return folder


def test_explanation_writes_every_figure_twice_and_one_page(folder):
    names = [f"{n}.{e}" for n in ("contributions", "filters", "layers", "when")
             for e in ("png", "svg")]  # fmt: skip
    assert sorted(p.name for p in folder.iterdir()) == sorted([*names, "index.html"])
    assert sorted(clip.FILES) == sorted([*names, "index.html"])  # what is not overwritten unasked


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
    figures = clip.explanation_figures(explanation)
    hostile = {"name": "<script>1</script>", "model": "\udcff<i>"}
    text = clip.render_explanation(explanation, figures, **hostile)
    page = check_standalone(text)
    text.encode()  # no lone surrogates
    assert "<b>bold" not in text and "&lt;b&gt;bold" in text
    assert page.has("<script>1</script>") and page.has("?<i>")


def test_a_short_clip_is_one_padded_segment_and_only_it_is_played():
    text = clip.render_explanation(
        make_explanation(n_samples=900), {}, name="short", model="", notes=["<b>odd</b>"]
    )
    assert Page(text).has("Before you trust this <b>odd</b>")
    assert Page(text).has("one segment of 0.25 s; the clip is shorter and was padded")
    assert len(played(text)[0]) == 900


def test_a_long_clip_is_played_in_part_and_the_page_stays_small(monkeypatch):
    monkeypatch.setattr(clip, "MAX_AUDIO_SAMPLES", 8000)
    text = clip.render_explanation(make_explanation(n_samples=32_000), {}, name="long", model="")
    assert Page(text).has("The first 0.5 of 2 seconds.")
    assert len(played(text)[0]) == 8000
    longest = np.zeros(960_000, np.float32)
    assert len(media.audio_uri(longest, sample_rate=16_000)) < 3_000_000
