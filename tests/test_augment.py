"""Augmentation against its formulas in double precision, and noises in stock against fresh ones."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from stapes import augment, native
from stapes.augment import Augmenter, Noises, filters, mixing
from stapes.config import ModelConfig, TrainingConfig
from stapes.native_batches import Variations
from stapes.segments import SILENCE_RMS, normalise

LENGTH = 4096
CONFIG = ModelConfig(("a", "b"), n_layers=5, n_filters=4, segment_length=LENGTH)


def batch(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(64, LENGTH)).astype(np.float32)


def one_hot() -> np.ndarray:
    return np.eye(2, dtype=np.float32)[np.arange(64) % 2]


def test_mixing_draws_shares_and_partners():
    share, partners = mixing(64, alpha=1.0, rng=np.random.default_rng(0))
    assert sorted(partners) == list(range(64))
    for seed in range(20):  # a segment mixed with itself, of another polarity, would be silence
        _, others = mixing(8, alpha=1.0, rng=np.random.default_rng(seed))
        assert sorted(others) == list(range(8)) and (others != np.arange(8)).all()
    assert share.min() >= 0 and share.max() <= 1 and share.std() > 0.2
    share, partners = mixing(64, alpha=0.0, rng=np.random.default_rng(0))
    assert (share == 1).all() and partners.tolist() == list(range(64))


def decibels_at(share: np.ndarray, points_db: np.ndarray) -> np.ndarray:
    """The response at shares of the highest frequency, linear in log frequency."""
    places = np.geomspace(augment.LOWEST_SHARE, 1, augment.N_CONTROL_POINTS)
    log_share = np.log(np.maximum(share, augment.LOWEST_SHARE))
    return np.stack([np.interp(log_share, np.log(places), row) for row in points_db])


def test_the_equaliser_is_linear_in_log_frequency_between_its_points():
    points_db = np.random.default_rng(1).normal(0, 4, (8, augment.N_CONTROL_POINTS))
    taps = filters(points_db)
    assert taps.shape == (8, augment.N_TAPS)
    np.testing.assert_allclose(taps, taps[:, ::-1], atol=1e-9)  # symmetric: no delay
    share = np.linspace(0.1, 1, 200)  # below, the filters are too short to follow
    phases = np.exp(-1j * np.pi * np.outer(np.arange(augment.N_TAPS), share))
    found = 20 * np.log10(np.abs(taps @ phases))
    assert np.abs(found - decibels_at(share, points_db)).max() < 1.0  # dB


def variations(rng: np.random.Generator, n_taps: int, n_noise: int) -> Variations:
    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return Variations(
        rng.permutation(64),
        own=numbers(64),
        other=numbers(64),
        taps=numbers(64, n_taps),
        noise_starts=rng.integers(n_noise - LENGTH + 1, size=64),
        noise_levels=numbers(64),
        rms=np.abs(numbers(64)),
    )


def by_hand(x: np.ndarray, by: Variations, noises: np.ndarray) -> np.ndarray:
    """The formula, in double precision."""
    rows, alike = [], normalise(x)
    for b in range(len(x)):
        mixed = by.own[b] * alike[b] + by.other[b] * alike[by.partners[b]]
        n_taps, start = by.taps.shape[1], by.noise_starts[b]
        heard = np.correlate(np.pad(mixed, n_taps // 2), by.taps[b].astype(float), "valid")
        heard += by.noise_levels[b] * noises[start : start + x.shape[1]]
        heard -= heard.mean()
        rows.append(heard * by.rms[b] / max(heard.std(), SILENCE_RMS))
    return np.array(rows)


@pytest.mark.parametrize("n_taps", [1, 7, 63])
@pytest.mark.parametrize("length", [LENGTH, 1001, 40])
@pytest.mark.parametrize("build", ["avx512", "avx2", "baseline", "PyTorch"])
def test_varying_is_its_formula(monkeypatch, build, length, n_taps):
    if build == "PyTorch":
        monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setenv("STAPES_KERNELS", build)  # one that the processor lacks falls back
    rng = np.random.default_rng(length + n_taps)
    segments = np.ascontiguousarray(batch()[:, :length])
    noises = rng.normal(size=3 * LENGTH).astype(np.float32)
    by = variations(rng, n_taps, len(noises))
    wanted = by_hand(segments.astype(np.float64), by, noises)
    found = augment.vary(segments, by, noises)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.skipif(not native.available(), reason="needs the kernels")
@pytest.mark.parametrize(
    ("name", "value"), [("partners", 64), ("partners", -1), ("noise_starts", 1)]
)
def test_what_is_not_there_is_refused(name, value):
    by = variations(np.random.default_rng(0), 7, LENGTH)
    getattr(by, name)[-1] = value
    with pytest.raises(ValueError, match="row 63 asks for what is not there"):
        augment.vary(batch(), by, np.zeros(LENGTH, "f4"))


def test_silence_stays_silent():
    by = replace(variations(np.random.default_rng(0), 7, LENGTH), noise_levels=np.zeros(64, "f4"))
    silence = np.zeros((64, LENGTH), "f4")
    assert not augment.vary(silence, by, silence[0]).any()


def fresh_noises(n: int, rng: np.random.Generator) -> np.ndarray:
    """Noises of random colours, each made from its own spectrum, and cut so that they do not close.

    What a high-pass filter of 300 Hz leaves of them has an expected RMS of 1, or they have 4.
    """
    n_bins = LENGTH + 1
    share = np.arange(n_bins) / (n_bins - 1)
    amplitudes = decibels_at(share, augment.noise_colours(n, rng))
    amplitudes = 10 ** (amplitudes / 20)
    heard = np.where(share >= 300 / 8000, amplitudes, 0)
    rms, heard_rms = (np.sqrt(np.square(a).mean(axis=1)) for a in (amplitudes, heard))
    amplitudes /= np.maximum(heard_rms, rms / 4)[:, None]
    parts = rng.uniform(-0.5, 0.5, (n, n_bins, 2)) * np.sqrt(12.0 * LENGTH)
    return np.fft.irfft((parts[..., 0] + 1j * parts[..., 1]) * amplitudes, 2 * LENGTH)[:, :LENGTH]


def pieces_of(stock: Noises, n: int, rng: np.random.Generator) -> np.ndarray:
    flat = stock.flat
    return np.array([flat[p : p + LENGTH] for p in stock.places(n, rng)], np.float64)


def octaves_db(noises: np.ndarray) -> np.ndarray:
    """Power in octaves from the second bin on: [N, T] -> [N, 10]."""
    power = np.square(np.abs(np.fft.rfft(noises)))
    edges = [2**i for i in range(1, 12)]
    bands = [power[:, a:b].mean(axis=1) for a, b in pairwise(edges)]
    return 10 * np.log10(np.stack(bands, axis=1) / LENGTH)


def test_noises_in_stock_are_like_fresh_ones():
    rng = np.random.default_rng(0)
    stock = Noises(LENGTH, device="cpu", rng=rng)
    found = pieces_of(stock, 2000, rng)
    wanted = fresh_noises(2000, rng)
    for noises in (found, wanted):
        rms = np.sqrt(np.square(noises).mean(axis=1))
        assert 1 < np.median(rms) < 1.3
        assert (rms < 8).all() and 0.05 < (rms > 3).mean() < 0.2  # rumble
    shares = [5, 25, 50, 75, 95]
    one, other = (np.percentile(octaves_db(n), shares, axis=0) for n in (found, wanted))
    np.testing.assert_allclose(one, other, atol=3.5)  # dB; 256 colours against 2000
    assert np.abs(one - other).mean() < 1.2


def test_pieces_of_one_noise_differ():
    rng = np.random.default_rng(0)
    pieces = pieces_of(Noises(LENGTH, device="cpu", rng=rng), 600, rng)
    pieces /= np.linalg.norm(pieces, axis=1, keepdims=True)
    likeness = np.abs(pieces @ pieces.T)
    np.fill_diagonal(likeness, 0)
    assert (likeness.max(axis=1) > 0.99).mean() < 0.1  # of rumble, at like places


def varied(
    augmenter: Augmenter, segments: np.ndarray, *, step: int = 0, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    by, targets = augmenter.choose(one_hot(), step=step, rng=np.random.default_rng(seed))
    return augmenter.vary(segments, by), targets


def test_noise_lies_between_its_levels():
    """Tones of one frequency: what is left without it is noise, and above 300 Hz it counts."""
    settings = TrainingConfig(mixing=0, equaliser_db=1e-6, noise_db=-10.0)
    augmenter = Augmenter(CONFIG, settings, rng=np.random.default_rng(0))
    tone = np.tile(np.sin(2 * math.pi * np.arange(LENGTH, dtype=np.float32) / 8), (64, 1))
    heard, _ = varied(augmenter, tone, seed=1)
    spectrum = np.square(np.abs(np.fft.rfft(heard.astype(np.float64))))
    at = LENGTH // 8
    noise = spectrum.sum(axis=1) - spectrum[:, at - 3 : at + 4].sum(axis=1)
    levels = 10 * np.log10(noise / spectrum[:, at])
    assert augment.QUIETEST_NOISE_DB - 2 < levels.min() < -40
    assert -6 < levels.max() < 4  # rumble, 12 dB louder than the loudest noise at most
    counting = 10 * np.log10(
        (noise - spectrum[:, : LENGTH * 3 // 160].sum(axis=1)) / spectrum[:, at]
    )
    assert -20 < counting.max() < -8


@pytest.mark.parametrize("turned", [True, False])
def test_with_everything_off_only_normalisation_a_sign_and_a_level_are_left(turned):
    settings = TrainingConfig(mixing=0, equaliser_db=0, polarity=turned)
    augmenter = Augmenter(CONFIG, settings, rng=np.random.default_rng(0))
    segments, targets = varied(augmenter, batch(), seed=0)
    rms = np.sqrt(np.square(segments).mean(axis=1, keepdims=True))
    found, wanted = segments / rms, normalise(batch())
    signs = np.sign(np.sum(found * wanted, axis=1, keepdims=True))
    np.testing.assert_allclose(signs * found, wanted, atol=1e-4)
    n_turned = np.sum(signs < 0)  # of 64
    assert 10 < n_turned < 54 if turned else n_turned == 0
    decibels = 20 * np.log10(rms)  # uniform within 6 dB of RMS 1
    assert np.abs(decibels).max() <= 6.01
    assert decibels.std() == pytest.approx(12 / math.sqrt(12), rel=0.2)
    assert np.array_equal(targets, one_hot())


def test_targets_are_mixed_in_proportion():
    settings = TrainingConfig(mixing=0.7, equaliser_db=0)
    augmenter = Augmenter(CONFIG, settings, rng=np.random.default_rng(0))
    segments, soft = varied(augmenter, batch(), seed=5)
    share, partner = mixing(64, alpha=0.7, rng=np.random.default_rng(5))
    y, x = one_hot(), normalise(batch().astype(np.float64))
    wanted = share[:, None] * y + (1 - share[:, None]) * y[partner]
    np.testing.assert_allclose(soft, wanted, atol=1e-6)
    both = np.stack([share[:, None] * x, (1 - share[:, None]) * x[partner]], axis=2)
    for parts, found in zip(both, normalise(segments.astype(np.float64)), strict=True):
        alike = [np.corrcoef(parts @ signs, found)[0, 1] for signs in ((1, 1), (1, -1))]
        assert np.abs(alike).max() > 0.999  # whichever way round they are


def test_the_last_steps_learn_from_sounds_that_are_not_mixed():
    settings = TrainingConfig(epochs=2, steps_per_epoch=5, unmixed_share=0.3)
    augmenter = Augmenter(CONFIG, settings, rng=np.random.default_rng(0))

    def targets(step: int) -> np.ndarray:
        return varied(augmenter, batch(), step=step, seed=step)[1]

    pure = [bool(np.isin(targets(step), (0, 1)).all()) for step in range(10)]
    assert pure == [False] * 7 + [True] * 3


def test_segments_that_are_not_normalised_are_left_alone():
    config = replace(CONFIG, normalise=False)
    augmenter = Augmenter(config, TrainingConfig(), rng=np.random.default_rng(0))
    segments, targets = varied(augmenter, batch(), seed=0)
    assert np.array_equal(segments, batch()) and np.array_equal(targets, one_hot())


def test_one_noise_in_eight_is_rumble_and_others_slope_gently():
    colours = augment.noise_colours(20_000, np.random.default_rng(0))
    rise = np.polyfit(np.linspace(0, 1, colours.shape[1]), colours.T, 1)[0]
    uncertain = 6.0 / np.sqrt(np.square(np.linspace(-0.5, 0.5, colours.shape[1])).sum())  # of a fit
    assert uncertain == pytest.approx(6.5, abs=0.2)
    assert np.mean(rise < -30) == pytest.approx(0.125 + 0.06, abs=0.02)
    assert np.mean(rise < -60) == pytest.approx(0.125 / 2, abs=0.01)
    assert rise.mean() == pytest.approx(-60 / 8 - 12 * 7 / 8, abs=0.5)
    assert np.quantile(rise, 0.999) < 6 + 4 * uncertain
