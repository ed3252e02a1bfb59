"""Made-up sounds: their levels, spectra and envelopes; and the names of negative folders."""

import numpy as np
import pytest

from stapes import negatives
from stapes.negatives import carriers, envelopes, is_negative
from stapes.segments import normalise

RATE = 16_000


def segments(n: int = 12, length: int = 16_000) -> np.ndarray:
    """Bursts of low noise."""
    rng = np.random.default_rng(7)
    noise = np.cumsum(rng.normal(size=(n, length)), axis=1)
    noise -= np.linspace(0, 1, length) * noise[:, -1:]
    envelope = np.exp(-(((np.arange(length) - length / 3) / (length / 20)) ** 2))
    return normalise((noise * envelope).astype(np.float32))


@pytest.mark.parametrize(
    "label, expected",
    [
        *[("noise", True), ("Background", True), ("OTHER", True), ("silence", True)],
        *[("dog", False), ("noise2", False), ("white noise", False), ("", False)],
    ],
)
def test_names_of_negative_folders(label, expected):
    assert is_negative(label) is expected


@pytest.mark.parametrize("shape", [(12, 16_000), (1, 16_001), (5, 1_000), (6, 4_000)])
def test_carriers_have_the_segments_shape_and_one_level(shape):
    given = segments(*shape)
    before = given.copy()
    for seed in range(10):
        made = carriers(given, sample_rate=RATE, rng=np.random.default_rng(seed))
        assert made.shape == shape and made.dtype == np.float32
        power = np.square(made, dtype=np.float64).mean(axis=1)
        assert np.allclose(power, 1, atol=0.5) and np.allclose(np.median(power), 1, atol=0.2)
    assert np.array_equal(given, before)


@pytest.mark.parametrize("make", [carriers, envelopes])
def test_the_same_seed_makes_the_same_and_another_does_not(make):
    one, same, other = (
        make(segments(), sample_rate=RATE, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert np.isclose(one, other).all(axis=1).mean() < 0.2  # flat envelopes are alike


def test_half_of_the_noises_have_a_segments_spectrum_and_none_its_course():
    given = segments(200, 4_000)
    noises = negatives._noises(given, np.random.default_rng(0))
    wanted = np.abs(np.fft.rfft(given))[:, 1:-1]  # the ends are real, their phases are not free
    found = np.abs(np.fft.rfft(noises))[:, 1:-1]
    borrowed = np.abs(found - wanted).max(axis=1) < 1e-3 * wanted.max(axis=1)
    assert 0.4 < borrowed.mean() < 0.6
    likeness = (normalise(noises) * given).mean(axis=1)
    assert np.median(np.abs(likeness)) < 0.3
    thirds = np.square(normalise(noises[borrowed])).reshape(borrowed.sum(), 4, -1).mean(axis=(0, 2))
    assert np.allclose(thirds, 1, atol=0.2)  # stationary, where the segments are bursts


def test_other_noises_fall_or_rise_by_a_power_of_frequency():
    noises = negatives._noises(segments(100, 4_000), np.random.default_rng(1))
    power = np.log(np.abs(np.fft.rfft(noises)[:, 100:1900]))
    share = np.log(np.arange(100, 1900))
    slopes = [np.polyfit(share, row, 1) for row in power]
    lines = np.array([np.polyval(slope, share) for slope in slopes])
    straight = np.abs(lines - power).max(axis=1) < 1e-2
    steepness = np.array(slopes)[straight, 0]
    assert len(steepness) > 30
    assert -2.01 < steepness.min() < -1.5 and 0.2 < steepness.max() < 0.51


def test_tones_have_their_pitch_and_harmonics():
    tones = negatives._tones(200, 16_000, sample_rate=RATE, rng=np.random.default_rng(2))
    power = np.square(np.abs(np.fft.rfft(tones)))
    strongest = power[:, 1:].argmax(axis=1) + 1  # Hz, a bin each
    low, high = negatives.TONE_HZ
    assert (strongest > 0.7 * low).all() and (strongest < 1.6 * high).all()
    assert strongest.min() < 100 and strongest.max() > 1500
    purity = power.max(axis=1) / power.sum(axis=1)
    assert purity.max() > 0.9 > 0.2 > purity.min()  # steady sines, and spread ones


def test_envelopes_are_of_many_kinds():
    found = envelopes(segments(400), sample_rate=RATE, rng=np.random.default_rng(3))
    assert found.shape == (400, 2_000) and (found >= 0).all() and np.isfinite(found).all()
    spread = found.std(axis=1) / np.maximum(found.mean(axis=1), 1e-9)
    assert 0.1 < np.mean(spread < 1e-3) < 0.35  # flat, a fifth or so
    assert np.mean(spread > 1) > 0.1  # pulses


def test_pulses_die_away_in_1_to_80_milliseconds():
    points = envelopes(segments(2_000), sample_rate=RATE, rng=np.random.default_rng(4))
    spacing = negatives.CONTROL_LENGTH / RATE
    decays = []
    for row in points[points.min(axis=1) < 0.01 * points.max(axis=1)].astype(np.float64):
        ratios = row[1:] / np.maximum(row[:-1], 1e-6 * row.max())
        alone = np.sort(ratios[row[1:] > 1e-4 * row.max()])[:10]  # where no new pulse comes
        if len(alone) == 10 and alone[-1] < 1 and np.ptp(alone) < 1e-4:
            decays.append(-spacing / np.log(alone[0]))
    assert len(decays) > 100
    assert 0.00099 < min(decays) < 0.0012
    assert 0.05 < max(decays) < 0.081
    assert 0.003 < np.median(decays) < 0.009  # even in log, but long ones often overlap


def test_borrowed_envelopes_are_those_of_other_segments():
    n, length = 64, 16_000
    given = np.zeros((n, length), np.float32)
    for i, row in enumerate(given):
        row[250 * i : 250 * i + 50] = 1.0
    points = envelopes(given, sample_rate=RATE, rng=np.random.default_rng(5))
    rises = np.maximum(np.diff(points, axis=1), 0)
    places = (rises.argmax(axis=1) + 1) * negatives.CONTROL_LENGTH // 250
    single = rises.max(axis=1) > 0.3 * rises.sum(axis=1)  # of one burst alone
    assert single.sum() > 5
    assert np.mean(places[single] == np.flatnonzero(single)) < 0.3


def test_tones_of_low_rates_are_not_folded_back():
    tones = negatives._tones(200, 1_000, sample_rate=1_000, rng=np.random.default_rng(2))
    strongest = np.square(np.abs(np.fft.rfft(tones))).argmax(axis=1)  # Hz, a bin each
    assert np.median(strongest) < 150  # the middle of 40 to 250 Hz in log is 100
