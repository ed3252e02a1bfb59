import csv
import json
import re
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.profile import (
    FEWEST_RECORDINGS,
    MOST_FRAMES,
    Profiler,
    RecordingProfile,
    TrainingProfile,
    describe,
    profile,
    shifts,
)

RATE = 16_000


def bark(seed: int = 0, *, seconds: float = 3.0, peak: float = 0.5, noise: float = 3e-4):
    """Bursts of wide-band noise between moments of background noise: float32 [T]."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    wave = rng.normal(size=len(time)) * np.exp(-((time % 1.0) * 10))
    wave = wave / np.abs(wave).max() * peak
    return rounded(wave + noise * rng.normal(size=len(time)))


def rounded(wave):
    """What 16 bits keep of a waveform."""
    return (np.round(np.clip(wave, -1, 1 - 2**-15) * 2**15) / 2**15).astype(np.float32)


def of(wave, **options) -> RecordingProfile:
    return profile(wave, sample_rate=RATE, **options)


@pytest.fixture(scope="module")
def training() -> TrainingProfile:
    return describe([of(bark(seed)) for seed in range(20)])


# One recording


@given(cuts=st.lists(st.integers(0, 40_000), max_size=8), seconds=st.sampled_from([0.005, 2.5, 40]))
@settings(max_examples=30)
def test_the_result_does_not_depend_on_where_blocks_end(cuts, seconds):
    wave = bark(1, seconds=seconds, peak=1.2)
    profiler = Profiler(RATE)
    for block in np.split(wave, sorted(min(cut, len(wave)) for cut in cuts)):
        profiler.add(block)
    assert profiler.result() == of(wave)


def test_single_samples_are_blocks_too():
    wave = bark(seconds=0.3)
    profiler = Profiler(RATE)
    for sample in wave:
        profiler.add(np.array([sample]))
    assert profiler.result() == of(wave)


def test_level_peak_and_clipping_are_those_of_a_sine():
    time = np.arange(2 * RATE) / RATE
    found = of((0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32))
    assert found.peak_db == pytest.approx(-6.02, abs=0.01)
    assert found.level_db == pytest.approx(-9.03, abs=0.05)
    assert found.bandwidth_hz == pytest.approx(1000, abs=250)
    assert found.clipped_share == 0
    square = np.sign(np.sin(2 * np.pi * 100 * time + 0.01)).astype(np.float32)
    assert of(square).clipped_share == 1


@pytest.mark.parametrize("cutoff_hz", [2_000, 4_000, 5_512])
def test_the_bandwidth_is_half_the_rate_that_a_recording_once_had(cutoff_hz):
    low = rounded(soxr.resample(bark(2), RATE, 2 * cutoff_hz))
    found = of(rounded(soxr.resample(low, 2 * cutoff_hz, RATE)))
    assert found.bandwidth_hz == pytest.approx(cutoff_hz, abs=300)
    assert of(bark(2)).bandwidth_hz == RATE / 2


def test_rounding_noise_with_dither_is_no_content():
    low = soxr.resample(soxr.resample(bark(2), RATE, 8_000), 8_000, RATE)
    rng = np.random.default_rng(0)
    dither = (rng.uniform(size=len(low)) - rng.uniform(size=len(low))) / 2**15
    assert of(rounded(low + dither)).bandwidth_hz <= 4_250


def test_the_noise_is_that_of_white_noise_of_known_level():
    wave = bark(noise=0.01, peak=0.5)
    expected_db = 20 * np.log10(0.01) - 20 * np.log10(np.abs(wave).max())
    # The quietest tenth of a fluctuating power lies a few dB below its mean.
    assert -5 < of(wave).noise_db - expected_db < 0


def test_level_changes_nothing_but_the_levels():
    loud, soft = of(bark(noise=3e-3)), of(bark(noise=3e-3) / 8)
    assert soft.peak_db == pytest.approx(loud.peak_db - 18.06, abs=0.01)
    assert soft.level_db == pytest.approx(loud.level_db - 18.06, abs=0.01)
    assert soft.noise_db == pytest.approx(loud.noise_db, abs=0.01)
    assert soft.bandwidth_hz == loud.bandwidth_hz


@pytest.mark.parametrize("wave", [np.zeros(0), np.zeros(5), np.zeros(RATE), np.ones(1)])
def test_silence_and_next_to_nothing_have_finite_profiles(wave):
    found = of(wave.astype(np.float32))
    assert all(np.isfinite(getattr(found, name)) for name in RecordingProfile.__slots__)


@pytest.mark.parametrize("rate", [1_000, 8_000, 11_025, 22_050, 44_100, 48_000, 192_000])
def test_every_rate_of_a_model_is_heard_up_to_its_half(rate):
    wave = np.random.default_rng(0).normal(size=rate // 2).astype(np.float32)
    assert profile(wave, sample_rate=rate).bandwidth_hz == pytest.approx(rate / 2)


def test_the_rate_of_the_file_is_kept():
    assert of(bark(), sample_rate_hz=44_100).sample_rate_hz == 44_100
    assert of(bark()).sample_rate_hz == RATE


def test_a_day_takes_no_more_memory_than_a_minute():
    profiler, block = Profiler(RATE), bark(seconds=10)
    tracemalloc.start()
    for _ in range(200):
        profiler.add(block)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * block.nbytes + 8 * MOST_FRAMES * 256 * 4


# Many recordings, and one that is unlike them


def test_recordings_like_those_of_the_training_set_raise_no_warning(training):
    assert [shifts(training, of(bark(seed))) for seed in range(100, 120)] == [()] * 20


def through_8_khz(wave):
    return soxr.resample(rounded(soxr.resample(wave, RATE, 8_000)), 8_000, RATE)


@pytest.mark.parametrize(
    ("change", "flag", "words"),
    [
        (through_8_khz, "narrow-band", "nothing above 4.* kHz .* training set had, up to 8 kHz"),
        (lambda w: rounded(w / 1000), "quiet", "loudest sample is at -6. dB .* at -[67] dB"),
        (lambda w: rounded(w * 20), "clipped", r"overdriven: \d+\.\d% .* training set hardly any"),
        (lambda w: w + bark(9, peak=0.01, noise=0.02), "noisy", "only 3. dB below .* 6. dB"),
    ],
)
def test_a_shift_is_told_in_words_with_both_numbers(training, change, flag, words):
    ((found, sentence),) = shifts(training, of(change(bark(50)).astype(np.float32)))
    assert found == flag
    assert re.search(words, sentence)
    assert "\n" not in sentence


def test_a_low_rate_of_the_file_is_named_as_the_cause(training):
    heard = of(through_8_khz(bark(50)), sample_rate_hz=8_000)
    ((_, sentence),) = shifts(training, heard)
    assert "8,000 samples a second" in sentence


def test_a_training_set_as_bad_as_the_recording_raises_no_warning():
    narrow = describe([of(through_8_khz(bark(seed))) for seed in range(20)])
    assert shifts(narrow, of(through_8_khz(bark(50)), sample_rate_hz=8_000)) == ()


def test_a_low_level_alone_is_no_warning(training):
    assert shifts(training, of(rounded(bark(50, noise=1e-4) / 10))) == ()


def test_silence_is_quiet_and_nothing_else(training):
    assert [flag for flag, _ in shifts(training, of(np.zeros(RATE, np.float32)))] == ["quiet"]


def test_few_recordings_say_nothing_about_what_is_usual():
    few = describe([of(bark(seed)) for seed in range(FEWEST_RECORDINGS - 1)])
    assert shifts(few, of(through_8_khz(bark(50)))) == ()


def test_describe_needs_recordings():
    with pytest.raises(ValueError, match="no recordings"):
        describe([])


def test_the_training_profile_survives_json(training):
    assert TrainingProfile.from_dict(json.loads(json.dumps(training.as_dict()))) == training


@pytest.mark.parametrize(
    "change",
    [
        {"n_recordings": 0},
        {"n_recordings": 2.5},
        {"n_recordings": True},
        {"sample_rates_hz": []},
        {"sample_rates_hz": None},
        {"noise_db": [1, 2]},
        {"noise_db": [3, 2, 1]},
        {"noise_db": [1, 2, float("nan")]},
        {"noise_db": ["1", 2, 3]},
        {"more": 1},
    ],
)
def test_a_forged_training_profile_is_refused(training, change):
    with pytest.raises(ValueError, match=r"profile|wanted"):
        TrainingProfile.from_dict({**training.as_dict(), **change})


@pytest.mark.parametrize("values", [{}, [], None, "profile"])
def test_something_else_is_no_training_profile(values):
    with pytest.raises(ValueError, match="has the keys"):
        TrainingProfile.from_dict(values)


# Real recordings


def test_cats_and_dogs_out_of_fold_raise_few_false_alarms_and_find_8_khz(data_folder):
    folder = data_folder / "cats_dogs"
    rows = list(csv.DictReader((folder / "metadata.csv").open()))
    waves = [soundfile.read(folder / row["file_name"], dtype="float32")[0] for row in rows]
    folds = [row["fold"] for row in rows]
    profiles = [of(wave) for wave in waves]
    usual = {
        k: describe([p for p, fold in zip(profiles, folds, strict=True) if fold != k])
        for k in set(folds)
    }
    warned = [bool(shifts(usual[k], p)) for k, p in zip(folds, profiles, strict=True)]
    assert np.mean(warned) <= 0.05
    found = [
        "narrow-band" in dict(shifts(usual[k], of(through_8_khz(wave))))
        for k, wave in list(zip(folds, waves, strict=True))[::7]
    ]
    assert np.mean(found) >= 0.95
