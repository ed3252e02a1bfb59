"""Features against SciPy and formulas written out; rules against what they must and cannot know."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.signal

from stapes import baselines, evaluation
from stapes.clips import Clip
from stapes.dataset import decode, load_dataset
from stapes.splits import folds

RATE = 16_000


def noise(seed, *, n=RATE, amplitude=0.1):
    return (amplitude * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def tone(hz, *, n=RATE, amplitude=0.1):
    return (amplitude * np.sin(2 * np.pi * hz / RATE * np.arange(n))).astype(np.float32)


def labelled(labels):
    return [
        Clip(Path(f"{i}.wav"), f"{i}.wav", label, source=str(i)) for i, label in enumerate(labels)
    ]


def alternating(n):
    """Pairs of two folds."""
    even, odd = list(range(0, n, 2)), list(range(1, n, 2))
    return [(odd, even), (even, odd)]


def accuracies(clips, waveforms, pairs):
    found = baselines.cross_predict(clips, waveforms, sample_rate=RATE, pairs=pairs)
    assert tuple(found) == baselines.NAMES
    classes = sorted({clip.label for clip in clips})
    targets = [classes.index(clip.label) for clip in clips]
    return {name: np.mean(called == targets) for name, called in found.items()}


def test_the_level_is_that_of_a_sine():
    rms, peak = baselines.level(tone(1000, amplitude=0.5))
    assert peak == pytest.approx(20 * np.log10(0.5), abs=0.01)
    assert rms == pytest.approx(20 * np.log10(0.5) - 10 * np.log10(2), abs=0.01)
    assert baselines.level(np.zeros(10, np.float32)).tolist() == [baselines.SILENCE_DB] * 2


def test_the_filters_are_triangles_even_in_mel():
    filters = baselines.mel_filters(4096, sample_rate=RATE)
    bins = np.fft.rfftfreq(4096, 1 / RATE)
    mel = 1127 * np.log(1 + bins / 700)  # the same scale with the natural logarithm
    step = 1127 * np.log(1 + 8000 / 700) / 41
    # No bin is further than 3.2 mel from any frequency; the constants agree to 0.03 mel.
    np.testing.assert_allclose(mel[filters.argmax(axis=0)], step * np.arange(1, 41), atol=3.3)
    for band in range(40):
        inside = mel[filters[:, band] > 0]
        assert step * band - 0.1 < inside.min() < inside.max() < step * (band + 2) + 0.1
    # Neighbouring triangles add up to 1 between the first and the last centre.
    between = (mel > step + 0.1) & (mel < 40 * step - 0.1)
    np.testing.assert_allclose(filters[between].sum(axis=1), 1)


def test_the_power_is_that_of_scipys_spectrogram():
    filters = baselines.mel_filters(512, sample_rate=RATE)
    waveform = noise(0)
    _, _, power = scipy.signal.spectrogram(
        waveform.astype(float), RATE, window="hann", nperseg=512, noverlap=256,
        detrend=False, scaling="spectrum", mode="psd",
    )  # fmt: skip
    power[1:-1] /= 2  # one side of the spectrum
    found = baselines.band_power(waveform, filters)
    np.testing.assert_allclose(found, power.T @ filters, rtol=1e-5)


def test_the_cepstrum_is_that_of_scipy():
    bands = np.random.default_rng(0).normal(size=(30, baselines.N_BANDS))
    cepstrum = scipy.fft.dct(bands, axis=1, norm="ortho")[:, : baselines.N_COEFFICIENTS]
    steps = cepstrum[1:] - cepstrum[:-1]
    wanted = [cepstrum.mean(0), cepstrum.std(0), steps.mean(0), steps.std(0)]
    np.testing.assert_allclose(baselines.mfcc_statistics(bands), np.concatenate(wanted), atol=1e-9)


@pytest.mark.parametrize("rate", [1000, 8000, 16_000, 44_100, 192_000])
@pytest.mark.parametrize("n", [0, 1, 50, 800, 30_000])
def test_every_recording_has_finite_features(rate, n):
    found = baselines.features([noise(0, n=n), np.zeros(n, np.float32)], sample_rate=rate)
    for table in (found.level, found.spectrum, found.mfcc):
        assert np.isfinite(table).all()


def test_long_recordings_have_as_many_frames_as_allowed(monkeypatch):
    monkeypatch.setattr(baselines, "MOST_FRAMES", 100)
    filters = baselines.mel_filters(512, sample_rate=RATE)
    power = baselines.band_power(noise(0, n=20 * RATE), filters)
    assert 90 <= len(power) <= 100
    short = baselines.band_power(noise(0, n=RATE), filters)
    np.testing.assert_allclose(power.mean(), short.mean(), rtol=0.1)


def test_loudness_is_heard_by_the_rule_for_it_alone():
    # The same tone loud and soft; the level of each class varies by 6 dB, the gap is 20 dB.
    rng = np.random.default_rng(0)
    labels = ["loud", "soft"] * 10
    levels = [(0.3 if label == "loud" else 0.03) * 2 ** rng.uniform(-1, 0) for label in labels]
    waveforms = [noise(i, n=8000, amplitude=a) for i, a in enumerate(levels)]
    found = accuracies(labelled(labels), waveforms, alternating_by_pairs(20))
    assert found[baselines.LOUDNESS] == 1
    assert found[baselines.MAJORITY] == 0.5


def alternating_by_pairs(n):
    first = [i for i in range(n) if i // 2 % 2 == 0]
    second = [i for i in range(n) if i // 2 % 2]
    return [(second, first), (first, second)]


def test_spectra_are_told_apart_at_any_loudness():
    labels = ["high", "low", "middle"] * 8
    hz = {"high": 4000, "low": 300, "middle": 1200}
    levels = np.random.default_rng(0).permutation(np.geomspace(0.01, 0.5, 24))
    waveforms = [
        tone(hz[label], n=8000, amplitude=a) + noise(i, n=8000, amplitude=a / 10)
        for i, (label, a) in enumerate(zip(labels, levels, strict=True))
    ]
    found = accuracies(labelled(labels), waveforms, alternating(24))
    assert found[baselines.SPECTRUM] == found[baselines.MFCC] == 1
    assert found[baselines.LOUDNESS] < 0.7


def test_rhythm_is_heard_by_the_statistics_of_mfcc():
    # The same noise, steady or in bursts, at the same mean power.
    labels = ["steady", "bursts"] * 10
    gate = np.sqrt(2) * (np.arange(RATE) // 2000 % 2)
    waveforms = [noise(i) * (gate if i % 2 else 1) for i in range(20)]
    found = accuracies(labelled(labels), waveforms, alternating_by_pairs(20))
    assert found[baselines.MFCC] == 1
    assert found[baselines.SPECTRUM] < 0.9


def test_the_majority_is_that_of_the_training_clips():
    clips = labelled(["b", "b", "a", "b", "a", "a"])
    found = baselines.cross_predict(
        clips, [noise(i) for i in range(6)], sample_rate=RATE, pairs=[([0, 1, 2], [3, 4])]
    )
    assert found[baselines.MAJORITY].tolist() == [-1, -1, -1, 1, 1, -1]
    for called in found.values():
        assert (called >= 0).tolist() == [False, False, False, True, True, False]


@pytest.mark.parametrize("n", [800, 1])
def test_tiny_silent_and_very_short_data_are_judged(n):
    waveforms = [np.zeros(n, np.float32), noise(0, n=n), noise(1, n=n), np.zeros(n, np.float32)]
    found = accuracies(labelled(["a", "b", "a", "b"]), waveforms, [([0, 1], [2, 3]), ([0], [1])])
    assert set(found) == set(baselines.NAMES)


def test_that_there_are_many_classes_is_nobodys_mistake():
    clips = labelled([str(i // 2) for i in range(40)])
    waveforms = [noise(i, n=800) for i in range(40)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accuracies(clips, waveforms, alternating(40))


def test_the_answers_are_always_the_same():
    clips, waveforms = labelled(["a", "b", "c"] * 4), [noise(i, n=2000) for i in range(12)]
    told = []
    first, second = (
        baselines.cross_predict(
            clips,
            waveforms,
            sample_rate=RATE,
            pairs=alternating(12),
            progress=lambda *what: told.append(what),
        )
        for _ in range(2)
    )
    for name in baselines.NAMES:
        np.testing.assert_array_equal(first[name], second[name])
    assert told == [("simple rules", i, 12, "") for i in range(1, 13)] * 2


def test_the_summary_compares_on_the_clips_that_were_judged():
    # Of 30 clips 20 were judged, by two seeds: always right, and right about class a alone.
    clips = labelled(["a", "b"] * 15)
    judged = clips[:20] * 2
    right = np.array([True] * 20 + [clip.label == "a" for clip in clips[:20]])
    predictions = {
        "all a": np.zeros(30, np.int64),
        "all right": np.array([0, 1] * 15),
        "not asked": np.array([0, 1] * 10 + [-1] * 10),
    }
    found = baselines.summarise(predictions, clips, judged=judged, right=right)
    assert [row["name"] for row in found] == list(predictions)
    weak, perfect, same = found
    assert perfect["clips"] == same["clips"]
    assert perfect["clips"]["accuracy"] == 1
    assert weak["clips"]["accuracy"] == weak["clips"]["balanced_accuracy"] == 0.5
    assert weak["clips"]["n"] == 20
    assert weak["clips"]["interval"][0] < 0.5 < weak["clips"]["interval"][1]
    # 0.75 against 0.5; ten sources in which one seed of two is ahead, none behind.
    assert weak["difference"]["accuracy"] == pytest.approx(0.25)
    assert weak["difference"]["p_value"] == pytest.approx(2 / 2**10)
    assert weak["difference"]["beaten"]
    assert perfect["difference"]["accuracy"] == pytest.approx(-0.25)
    assert not perfect["difference"]["beaten"]
    assert [evaluation.surely(row["difference"]) for row in found] == [1, -1, -1]
    json.dumps(found)


@pytest.mark.skipif(not os.environ.get("STAPES_DATA"), reason="set STAPES_DATA for recordings")
def test_real_recordings_are_judged_as_well_as_is_documented(data_folder):
    decoded = decode(load_dataset(data_folder / "cats_dogs"), sample_rate=RATE)
    found = accuracies(decoded.clips, decoded.waveforms, folds(decoded.clips, seed=0))
    assert found[baselines.MAJORITY] == pytest.approx(166 / 280)
    assert found[baselines.MFCC] >= 0.9
    assert found[baselines.MFCC] > found[baselines.SPECTRUM] > found[baselines.LOUDNESS]


@pytest.mark.parametrize(("n", "beaten"), [(3, False), (5, False), (6, True)])  # p = 2 / 2^n
def test_a_rule_that_a_few_sources_speak_against_is_not_beaten(n, beaten):
    clips, wrong = labelled(["a", "b"] * 3)[:n], np.array([1, 0] * 3)[:n]
    right = np.full(n, True)
    found = baselines.summarise({"always wrong": wrong}, clips, judged=clips, right=right)
    assert found[0]["difference"]["accuracy"] == 1
    assert found[0]["difference"]["beaten"] == beaten
