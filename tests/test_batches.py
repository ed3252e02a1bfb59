"""Batches: functions of seed and number alone; made-up sounds in stock against fresh ones."""

from itertools import islice

import numpy as np
import pytest
import torch

from stapes import augment, generator, native, native_batches, negatives, threads
from stapes import batches as making
from stapes.batches import MadeUp, batches
from stapes.config import ModelConfig, TrainingConfig
from stapes.generator import Examples, SegmentGenerator
from stapes.segments import normalise

CONFIG = ModelConfig(("a", "b"), n_layers=3, n_filters=4, segment_length=1001)
RATE = 16_000


def clips(*targets: int) -> Examples:
    rng = np.random.default_rng(0)
    waveforms = [rng.normal(size=900 + 400 * i).astype(np.float32) for i in range(len(targets))]
    names = [str(i) for i in range(len(targets))]
    return Examples(names, waveforms, targets, sources=names)


def twice(waveform) -> Examples:
    return Examples("ab", [waveform, waveform], [0, 1], sources="ab")


def some(n: int, *, first: int = 0, foreign: Examples | None = None, mixing: float = 1.0):
    settings = TrainingConfig(batch_size=12, mixing=mixing, negatives=0.25)
    coming = batches(CONFIG, settings, clips(0, 1, 1), foreign or clips(), first_step=first)
    return list(islice(coming, n))


def test_a_batch_is_a_function_of_the_seed_and_its_number():
    whole, rest = some(20), some(18, first=2)  # more than are planned at once
    for one, other in zip(whole[2:], rest, strict=True):
        assert np.array_equal(one.segments, other.segments)
        assert np.array_equal(one.targets, other.targets)
        assert np.array_equal(one.clips, other.clips)
    assert not np.array_equal(whole[0].segments, whole[1].segments)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_batches_do_not_depend_on_the_number_of_threads(n_threads):
    before = threads._ASKED.set(n_threads)  # of the kernels alone
    try:
        made = some(2)
    finally:
        threads._ASKED.reset(before)
    assert np.array_equal(made[1].segments, some(2)[1].segments)


def test_batches_of_pytorchs_arrays_are_those_of_numpys(monkeypatch):
    """What a GPU makes, but for where."""
    (wanted,) = some(1)
    for module in (augment, making, generator):
        monkeypatch.setattr(module, "put", lambda array, _device: torch.from_numpy(array.copy()))
    (found,) = some(1)
    assert isinstance(found.segments, torch.Tensor) and isinstance(found.targets, torch.Tensor)
    np.testing.assert_allclose(found.segments, wanted.segments, atol=2e-3)
    assert np.array_equal(found.targets, wanted.targets)


@pytest.mark.parametrize(("foreign", "n_own"), [(clips(), 0), (clips(-1, -1), 2)])
def test_a_quarter_is_none_of_the_classes_and_half_of_that_the_users_own(foreign, n_own):
    (batch,) = some(1, foreign=foreign, mixing=0.0)
    assert batch.segments.shape == (12, 1001) and batch.targets.shape == (12, 3)
    assert batch.targets[:, 2].tolist() == [0] * 9 + [1] * 3
    assert (batch.clips[:9] < 3).all() and (batch.clips[9:] >= 3).all()
    assert len(batch.clips) == 9 + n_own


@pytest.mark.parametrize("build", ["avx512", "avx2", "baseline", "PyTorch"])
def test_drawing_is_linear_interpolation_about_the_middle(monkeypatch, build):
    if build == "PyTorch":
        monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setenv("STAPES_KERNELS", build)  # one that the processor lacks falls back
    places = np.arange(5000, dtype=np.float32)
    noise = np.random.default_rng(2).normal(size=5000).astype(np.float32)
    drawn, heard = (
        SegmentGenerator(twice(w), segment_length=1000, gate=0, speed=0.2, seed=4)
        .batch(3, batch_size=64)
        .segments.astype(np.float64)
        for w in (places, noise)
    )
    rates = np.median(np.diff(drawn), axis=1)
    assert 0.8 <= rates.min() < 0.83 and 1.17 < rates.max() <= 1.2
    for at, segment, rate in zip(drawn, heard, rates, strict=True):
        inside = (at > 1) & (at < 4998)  # beyond lie zeros
        middle = np.median(at[inside] - rate * (np.arange(1000)[inside] - 999 / 2))
        assert middle % 1 == pytest.approx(0.5, abs=0.01)
        wanted = np.interp(at[inside], places, noise)
        np.testing.assert_allclose(segment[inside], wanted, atol=5e-3)


@pytest.mark.skipif(not native.available(), reason="the native kernels are not built")
@pytest.mark.parametrize("build", ["avx512", "avx2", "baseline"])
@pytest.mark.parametrize("rate", [0.05, 0.999, 1.0, 1.7, 1.9, 2.1, 2.3, 5.0])
def test_drawing_is_linear_interpolation_at_any_rate(monkeypatch, build, rate):
    """Eight or sixteen samples lie within as many as two vectors hold, or farther apart."""
    monkeypatch.setenv("STAPES_KERNELS", build)
    sound = np.random.default_rng(2).normal(size=6000).astype(np.float32)
    found = np.empty((1, 1001), np.float32)
    native_batches.draw(sound, np.array([7.3]), np.array([rate]), n_threads=1, out=found)
    wanted = np.interp(7.3 + rate * np.arange(1001), np.arange(6000), sound)
    np.testing.assert_allclose(found[0], wanted, atol=2e-5)  # of a vector's places in float32


@pytest.mark.parametrize("n_rows", [0, 1, 3])
def test_any_number_of_segments_is_drawn(n_rows):
    noise = np.random.default_rng(2).normal(size=5000).astype(np.float32)
    generator = SegmentGenerator(twice(noise), segment_length=1000, gate=0)
    batch = generator.batch(3, batch_size=n_rows)
    assert batch.segments.shape == (n_rows, 1000) and len(batch.clips) == n_rows


@pytest.mark.skipif(not native.available(), reason="the native kernels are not built")
def test_what_lies_outside_of_the_sound_is_refused():
    sound, out = np.zeros(2000, np.float32), np.empty((1, 1000), np.float32)
    for first, rate in [(-1.0, 1.0), (990.0, 1.0), (0.0, 2.0), (float("nan"), 1.0), (0.0, 0.0)]:
        with pytest.raises(ValueError, match="outside"):
            native_batches.draw(sound, np.array([first]), np.array([rate]), n_threads=2, out=out)


def models(n: int) -> np.ndarray:
    """Bursts of low noise, raw."""
    rng = np.random.default_rng(7)
    noise = np.cumsum(rng.normal(size=(n, 4000)), axis=1)
    envelope = np.exp(-(((np.arange(4000) - 1300) / 300) ** 2))
    return (0.01 * noise * envelope).astype(np.float32)


def crests_and_tilts(sounds: np.ndarray) -> np.ndarray:
    """Of each sound, the ratio of peak to RMS and the share of power in its lower half: [2, N]."""
    sounds = normalise(sounds)
    power = np.square(np.abs(np.fft.rfft(sounds)))
    tilt = power[:, : power.shape[1] // 2].sum(axis=1) / np.maximum(power.sum(axis=1), 1e-9)
    return np.stack([np.abs(sounds).max(axis=1), tilt])


def test_made_up_sounds_in_stock_are_like_fresh_ones():
    rng = np.random.default_rng(0)
    given = models(256)
    stock = MadeUp(given, sample_rate=RATE, device="cpu", rng=rng)
    found = np.empty((1500, 4000), np.float32)
    stock.draw(stock.choose(len(found), rng), out=found)
    many = normalise(np.tile(given, (6, 1))[:1500])
    wanted = negatives.carriers(many, sample_rate=RATE, rng=rng)
    points = negatives.envelopes(many, sample_rate=RATE, rng=rng)
    wanted *= np.repeat(points, negatives.CONTROL_LENGTH, axis=1)
    shares = [10, 30, 50, 70, 90]
    one, other = (np.percentile(crests_and_tilts(s), shares, axis=1) for s in (found, wanted))
    np.testing.assert_allclose(one[:, 0], other[:, 0], rtol=0.25)
    np.testing.assert_allclose(one[:, 1], other[:, 1], atol=0.15)
