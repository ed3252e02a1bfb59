from functools import lru_cache

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes import alignment as module
from stapes.alignment import BLOCK_LENGTH, align, flatten
from stapes.fingerprint import RATE_HZ
from stapes.synthesis import clip


def scene(seed, seconds=4.0, label="bark"):
    return clip(label, np.random.default_rng(seed), seconds=seconds, sample_rate=RATE_HZ)


def noise(seed, length=RATE_HZ):
    return np.random.default_rng(seed).normal(size=length).astype(np.float32)


def band_powers(waveform):
    spectrum = np.abs(np.fft.rfft(waveform)) ** 2
    hertz = np.fft.rfftfreq(len(waveform), 1 / RATE_HZ)
    return [spectrum[(hertz >= low) & (hertz < low + 500)].mean() for low in range(500, 3500, 500)]


def test_flattening_takes_spectrum_and_envelope_away():
    length = 4 * RATE_HZ
    fall = 1 / np.linspace(0.05, 1, length // 2 + 1)  # 26 dB from the lowest to the highest
    coloured = np.fft.irfft(np.fft.rfft(noise(0, length)) * fall, length)
    swelling = 0.02 + np.sin(np.pi * np.arange(length) / length) ** 2
    before = (0.01 * coloured * swelling).astype(np.float32)
    ratios = []
    for waveform in (before, flatten(before)):
        powers, levels = band_powers(waveform), [np.std(part) for part in np.split(waveform, 16)]
        ratios.append((max(powers) / min(powers), max(levels) / min(levels)))
    assert min(ratios[0]) > 10
    assert max(ratios[1]) < 1.6


def test_silence_stays_silent_and_lengths_stay():
    for length in (1, 255, 256, 257, 10_000):
        flat = flatten(np.zeros(length, np.float32))
        assert flat.shape == (length,)
        assert not flat.any()


def test_correlations_are_those_of_numpy():
    longer, shorter = noise(1, 700), noise(2, 300)
    np.testing.assert_allclose(
        module._correlate(longer, shorter), np.correlate(longer, shorter), atol=1e-3
    )


def test_pieces_of_different_noise_correlate_as_the_threshold_assumes():
    a, b = flatten(noise(3, 200_000)), flatten(noise(4, 200_000))
    pieces = [x[: 100 * BLOCK_LENGTH].reshape(100, -1) for x in (a, b)]
    cosines = np.einsum("bt,bt->b", *pieces) / np.sqrt(
        np.prod([np.einsum("bt,bt->b", p, p) for p in pieces], axis=0)
    )
    assert 0.015 < cosines.std() < 0.035  # stated: 0.024
    assert np.abs(cosines).max() < module.SAME / 4


@lru_cache
def recording_at_48_khz():
    return clip("meow", np.random.default_rng(5), seconds=4.0, sample_rate=48_000)


@settings(max_examples=15)
@given(
    shift=st.integers(0, 96_000),
    gain_db=st.floats(-30, 10),
    inverted=st.booleans(),
    guess=st.floats(-0.04, 0.04),
)
def test_offset_level_and_polarity_of_a_cut_are_found(shift, gain_db, inverted, guess):
    fine = recording_at_48_khz()
    gain = 10 ** (gain_db / 20) * (-1 if inverted else 1)
    first = soxr.resample(fine, 48_000, RATE_HZ)
    second = soxr.resample(fine[shift:] * gain, 48_000, RATE_HZ).astype(np.float32)
    found = align(first, second, offset_seconds=shift / 48_000 + guess)
    assert found is not None
    assert found.offset_seconds * RATE_HZ == pytest.approx(shift / 6, abs=0.1)  # samples
    assert found.gain_db == pytest.approx(gain_db, abs=0.1)
    assert found.inverted == inverted
    assert found.similarity > 0.95
    assert found.agreement > 0.9
    assert found.shared_seconds == pytest.approx(4.0 - shift / 48_000, abs=0.3)


@pytest.mark.parametrize("ratio", [0.3, 0.6])
def test_similarity_is_that_of_a_copy_with_noise_over_it(ratio):
    original = noise(6, 2 * RATE_HZ)
    copy = original + ratio * noise(7, 2 * RATE_HZ)
    found = align(original, copy.astype(np.float32), offset_seconds=0.0)
    assert found.similarity == pytest.approx(1 / np.sqrt(1 + ratio**2), abs=0.02)


def test_half_a_second_is_enough_and_a_fifth_is_not():
    waveform = scene(8, seconds=3.0)
    for seconds, proved in ((0.5, True), (0.2, False)):
        start = 12_000 - round(seconds * RATE_HZ)
        found = align(waveform[:12_000], waveform[start:], offset_seconds=start / RATE_HZ)
        assert (found is not None) == proved


def test_what_is_short_must_be_more_alike():
    original = noise(20, 3 * RATE_HZ)
    copy = (original + 1.1 * noise(21, 3 * RATE_HZ)).astype(np.float32)  # correlation 0.67
    assert align(original, copy, offset_seconds=0.0) is not None
    assert align(original[:3_500], copy[:3_500], offset_seconds=0.0) is None
    assert align(original[:3_500], original[:3_500], offset_seconds=0.0) is not None


def test_a_stretch_in_otherwise_different_recordings_is_found():
    first, second, shared = scene(9), scene(10), scene(11, seconds=1.0)
    first[8_000:16_000], second[16_000:24_000] = shared, shared
    found = align(first, second, offset_seconds=-1.0)
    assert found.start_seconds == pytest.approx(1.0, abs=0.15)
    assert found.shared_seconds == pytest.approx(1.0, abs=0.3)
    assert found.agreement < 0.5


def periodic(shape):
    time = np.arange(3 * RATE_HZ) / RATE_HZ
    phase = 2 * np.pi * 440 * time
    return {
        "tone": np.sin(phase),
        "square wave": np.sign(np.sin(phase)),
        "hum": sum(np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 20)),
        "clicks": (np.arange(len(time)) % 800 == 0).astype(float),
        "tone over noise": np.sin(phase) + 0.01 * noise(shape, len(time)),
    }


@pytest.mark.parametrize("kind", ["tone", "square wave", "hum", "clicks"])
def test_what_repeats_itself_proves_nothing(kind):
    waveform = (0.3 * periodic(0)[kind]).astype(np.float32)
    for offset in (0, 80, 800, 4_000):  # exact repetitions of all of them
        assert align(waveform, waveform[offset:], offset_seconds=offset / RATE_HZ) is None
        assert align(waveform, waveform[offset:], offset_seconds=0.0) is None


def test_tones_of_one_pitch_over_noise_of_their_own_are_two_recordings():
    first, second = (periodic(shape)["tone over noise"].astype(np.float32) for shape in (1, 2))
    assert align(first, second, offset_seconds=0.0) is None
    assert align(first, first[800:], offset_seconds=0.1) is not None


def test_calls_of_one_animal_are_different_recordings_at_every_offset():
    rng = np.random.default_rng(12)
    first, second = (clip("meow", rng, seconds=1.5, sample_rate=RATE_HZ) for _ in range(2))
    for offset_seconds in np.arange(-1.1, 1.1, 0.1):  # each looks 50 ms to both sides
        assert align(first, second, offset_seconds=offset_seconds) is None


def test_no_overlap_and_silence_share_nothing():
    waveform, silence = scene(13, seconds=1.0), np.zeros(RATE_HZ, np.float32)
    assert align(waveform, waveform, offset_seconds=1.0) is None
    assert align(waveform, waveform, offset_seconds=-5.0) is None
    assert align(waveform, silence, offset_seconds=0.0) is None
    assert align(silence, silence, offset_seconds=0.0) is None
    assert align(waveform, waveform[:0], offset_seconds=0.0) is None


def test_long_overlaps_are_compared_in_parts(monkeypatch):
    waveform = scene(14, seconds=6.0)
    whole = align(waveform, waveform[4_000:], offset_seconds=0.5)
    monkeypatch.setattr(module, "LONGEST_LENGTH", 2 * RATE_HZ)
    parts = align(waveform, waveform[4_000:], offset_seconds=0.5)
    assert parts.offset_seconds == pytest.approx(whole.offset_seconds, abs=1e-5)
    assert parts.shared_seconds == pytest.approx(whole.shared_seconds, abs=0.125)
    assert parts.agreement == pytest.approx(whole.agreement, abs=0.05)


@pytest.mark.parametrize("silent", [(0, 0), (1, 3)])
@pytest.mark.parametrize("seconds", [4.0, 4.1, 4.2, 5.9])
def test_a_copy_agrees_wholly_however_its_length_falls_into_parts(monkeypatch, silent, seconds):
    monkeypatch.setattr(module, "LONGEST_LENGTH", 2 * RATE_HZ)
    waveform = scene(17, seconds=seconds)
    waveform[silent[0] * RATE_HZ : silent[1] * RATE_HZ] = 0.0
    found = align(waveform, 0.5 * waveform, offset_seconds=0.0)
    assert found.agreement > 0.95
    assert found.shared_seconds > seconds - (silent[1] - silent[0]) - 0.3


@pytest.mark.parametrize("middle_seconds", [1.0, 2.0, 2.1, 4.0])
def test_half_a_second_is_found_wherever_parts_meet(monkeypatch, middle_seconds):
    monkeypatch.setattr(module, "LONGEST_LENGTH", 2 * RATE_HZ)
    first, second = scene(18, seconds=6.0), scene(19, seconds=6.0)
    middle, reach = round(middle_seconds * RATE_HZ), round(0.3 * RATE_HZ)
    second[middle - reach : middle + reach] = first[middle - reach : middle + reach]
    found = align(first, second, offset_seconds=0.0)
    assert found.start_seconds == pytest.approx(middle_seconds - 0.3, abs=0.13)
    assert found.shared_seconds == pytest.approx(0.6, abs=0.2)
