"""Augmentation against its formulas in double precision, and noises in stock against fresh ones."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from stapes import augment
from stapes.augment import Augmenter, Noises, equalise, mix, normalise_
from stapes.config import ModelConfig, TrainingConfig
from stapes.segments import normalise

LENGTH = 4096
CONFIG = ModelConfig(("a", "b"), n_layers=5, n_filters=4, segment_length=LENGTH)


def batch(seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(64, LENGTH)).astype(np.float32))


def one_hot() -> torch.Tensor:
    return torch.eye(2)[torch.arange(64) % 2]


def test_tensors_are_normalised_like_arrays_to_any_level():
    raw = batch() * 0.01 + 0.5
    np.testing.assert_allclose(normalise_(raw.clone()), normalise(raw.numpy()), atol=2e-3)
    levels = torch.linspace(0.5, 2, 64)[:, None]
    found = normalise_(raw.clone(), rms=levels)
    np.testing.assert_allclose(found, levels.numpy() * normalise(raw.numpy()), atol=4e-3)
    assert not normalise_(torch.zeros(2, 8)).any()


def test_mixing_keeps_the_power_and_mixes_targets_in_proportion():
    mixed, soft = mix(normalise_(batch()), one_hot(), alpha=1.0, rng=np.random.default_rng(0))
    np.testing.assert_allclose(soft.sum(dim=1), 1, rtol=1e-6)
    assert (soft.min(dim=1).values > 0.05).float().mean() > 0.2
    power = mixed.square().mean(dim=1)  # of independent noises; partners may be the segment itself
    assert np.median(power) == pytest.approx(1, rel=0.05)


def test_mixing_is_its_formula():
    segments, seed = normalise_(batch()), 5
    mixed, soft = mix(segments, one_hot(), alpha=0.7, rng=np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    share, partner = rng.beta(0.7, 0.7, (64, 1)), rng.permutation(64)
    x, y = segments.double().numpy(), one_hot().numpy()
    wanted = (share * x + (1 - share) * x[partner]) / np.sqrt(share**2 + (1 - share) ** 2)
    np.testing.assert_allclose(mixed, wanted, atol=1e-5)
    np.testing.assert_allclose(soft, share * y + (1 - share) * y[partner], atol=1e-6)


def decibels_at(share: np.ndarray, points_db: np.ndarray) -> np.ndarray:
    """The response at shares of the highest frequency, linear in log frequency."""
    places = np.geomspace(augment.LOWEST_SHARE, 1, augment.N_CONTROL_POINTS)
    log_share = np.log(np.maximum(share, augment.LOWEST_SHARE))
    return np.stack([np.interp(log_share, np.log(places), row) for row in points_db])


@pytest.mark.parametrize("length", [4096, 4001])
def test_the_equaliser_is_linear_in_log_frequency_between_its_points(length):
    points_db = np.random.default_rng(1).normal(0, 4, (8, augment.N_CONTROL_POINTS))
    impulse = torch.zeros(8, length)
    impulse[:, 0] = 1
    weights = augment.response_weights(length // 2 + 1)
    found = np.fft.rfft(equalise(impulse, points_db, weights=weights).double().numpy())
    share = np.arange(length // 2 + 1) / (length // 2)
    wanted = 10 ** (decibels_at(share, points_db) / 20)
    np.testing.assert_allclose(np.abs(found), wanted, rtol=1e-4)


def fresh_noises(n: int, rng: np.random.Generator) -> np.ndarray:
    """Noises of random colours, each made from its own spectrum, of expected RMS 1."""
    n_bins = LENGTH // 2 + 1
    amplitudes = decibels_at(np.arange(n_bins) / (n_bins - 1), augment.noise_colours(n, rng))
    amplitudes = 10 ** (amplitudes / 20)
    amplitudes /= np.sqrt(np.square(amplitudes).mean(axis=1, keepdims=True))
    parts = rng.uniform(-0.5, 0.5, (n, n_bins, 2)) * np.sqrt(6.0 * LENGTH)
    return np.fft.irfft((parts[..., 0] + 1j * parts[..., 1]) * amplitudes, LENGTH)


def octaves_db(noises: np.ndarray) -> np.ndarray:
    """Power in octaves from the second bin on: [N, T] -> [N, 10]."""
    power = np.square(np.abs(np.fft.rfft(noises)))
    edges = [2**i for i in range(1, 12)]
    bands = [power[:, a:b].mean(axis=1) for a, b in pairwise(edges)]
    return 10 * np.log10(np.stack(bands, axis=1) / LENGTH)


def test_noises_in_stock_are_like_fresh_ones():
    rng = np.random.default_rng(0)
    stock = Noises(LENGTH, device="cpu", rng=rng)
    found = stock.draw(2000, rng).double().numpy()
    wanted = fresh_noises(2000, rng)
    for noises in (found, wanted):
        rms = np.sqrt(np.square(noises).mean(axis=1))
        assert np.median(rms) == pytest.approx(1, abs=0.03)
        assert np.percentile(rms, [1, 99]) == pytest.approx([1, 1], abs=0.35)
    shares = [5, 25, 50, 75, 95]
    one, other = (np.percentile(octaves_db(n), shares, axis=0) for n in (found, wanted))
    np.testing.assert_allclose(one, other, atol=2.5)  # dB; 256 colours against 2000
    assert np.abs(one - other).mean() < 0.8


def test_pieces_of_one_noise_differ():
    rng = np.random.default_rng(0)
    pieces = Noises(LENGTH, device="cpu", rng=rng).draw(600, rng)
    pieces = pieces / pieces.norm(dim=1, keepdim=True)
    likeness = (pieces @ pieces.T).abs().fill_diagonal_(0)
    assert (likeness.max(dim=1).values > 0.99).float().mean() < 0.1  # of rumble, at like places


def test_noise_lies_between_its_levels():
    settings = TrainingConfig(mixing=0, equaliser_db=1e-6, noise_db=-10.0)
    config = ModelConfig(("a", "b"), segment_length=LENGTH, normalise=False)
    vary = Augmenter(config, settings, rng=np.random.default_rng(0))
    noise, _ = vary(torch.zeros(64, LENGTH), one_hot(), rng=np.random.default_rng(1))
    levels = 10 * np.log10(noise.square().mean(dim=1).numpy())
    assert augment.QUIETEST_NOISE_DB - 2 < levels.min() < -40
    assert -20 < levels.max() < -8


def test_with_everything_off_only_normalisation_and_a_level_are_left():
    settings = TrainingConfig(mixing=0, equaliser_db=0)
    vary = Augmenter(CONFIG, settings, rng=np.random.default_rng(0))
    segments, targets = vary(batch(), one_hot(), rng=np.random.default_rng(0))
    rms = segments.square().mean(dim=1, keepdim=True).sqrt()
    np.testing.assert_allclose(segments / rms, normalise(batch().numpy()), atol=1e-4)
    decibels = 20 * np.log10(rms.numpy())  # uniform within 6 dB of RMS 1
    assert np.abs(decibels).max() <= 6.01
    assert decibels.std() == pytest.approx(12 / math.sqrt(12), rel=0.2)
    assert torch.equal(targets, one_hot())
