"""Gains in steps: a segment's own, shared by neighbours, grouped into stretches."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes import levels as levels_module
from stapes import native
from stapes.config import PRESETS, ModelConfig, preset_sizes
from stapes.engine import FoldedNetwork
from stapes.levels import LEVEL_STEP_DB, Levels, levels, stretches
from stapes.segments import segment_starts


def uneven(seconds: float, *, seed: int = 0) -> np.ndarray:
    """Noise whose level changes by up to 40 dB every half second, with an offset."""
    rng = np.random.default_rng(seed)
    n = int(seconds * 16_000)
    gains = np.repeat(10 ** (rng.uniform(-40, 0, n // 8_000 + 1) / 20), 8_000)[:n]
    return (gains * rng.normal(size=n) + 0.002).astype(np.float32)


@pytest.mark.parametrize("length", [1000, 999, 16_000])
@pytest.mark.parametrize("hop", [64, 100, 333])
def test_a_level_is_worked_out_by_hand(length, hop):
    waveform = uneven(2, seed=length)[: length + 20 * hop]
    starts = segment_starts(len(waveform), segment_length=length, hop_length=hop)
    found = levels(waveform, starts, segment_length=length)
    for i, start in enumerate(starts.tolist()):
        segment = waveform[start : start + length].astype(np.float64)
        level = 10 ** (12 * round(20 * math.log10(segment.std()) / 12) / 20)
        offset = level / 8 * round(segment.mean() / (level / 8))
        assert found.scales[i] == pytest.approx(1 / level)
        assert found.offsets[i] == pytest.approx(offset)
        assert found.peaks[i] == np.abs(waveform[start : start + length]).max()


def test_what_the_network_hears_is_near_rms_1():
    waveform = uneven(20)
    starts = segment_starts(len(waveform), segment_length=16_000, hop_length=1024)
    given = levels(waveform, starts, segment_length=16_000)
    heard = given.apply(np.stack([waveform[s : s + 16_000] for s in starts]))
    rms_db = 20 * np.log10(heard.std(axis=1))
    assert np.abs(rms_db).max() <= LEVEL_STEP_DB / 2 + 0.01
    assert np.abs(heard.mean(axis=1)).max() <= 2.1 / 16
    assert len(np.unique(given.scales)) < 8


@pytest.mark.parametrize("length", [1000, 999, 16_000])
def test_a_huge_sample_changes_the_level_of_its_own_segments_alone(length):
    waveform = uneven(4, seed=length)
    starts = segment_starts(len(waveform), segment_length=length, hop_length=500)
    without = levels(waveform, starts, segment_length=length)
    waveform[20_000] = 2.0**31
    given = levels(waveform, starts, segment_length=length)
    elsewhere = (starts > 20_000) | (starts + length <= 20_000)
    assert 0 < elsewhere.sum() < len(starts)
    np.testing.assert_array_equal(given.offsets[elsewhere], without.offsets[elsewhere])
    np.testing.assert_array_equal(given.scales[elsewhere], without.scales[elsewhere])


@pytest.mark.parametrize("constant", [0.0, 0.5, -1.0])
def test_silence_and_constants_stay_small(constant):
    given = levels(np.full(2_000, constant, np.float32), np.array([0, 500]), segment_length=1000)
    heard = given.apply(np.full((2, 1000), constant, np.float32))
    assert np.abs(heard).max() < 0.2


@given(
    st.lists(st.sampled_from([1.0, 4.0, 16.0]), min_size=1, max_size=60),
    st.integers(1, 30),
    st.integers(1, 40),
)
def test_every_segment_is_in_a_stretch_of_its_gain(scales, overlapping, most):
    n, hop = len(scales), 10
    zeros = np.zeros(n, np.float32)
    given = Levels(zeros, np.array(scales, np.float32), zeros)
    starts = 7 + hop * np.arange(n)
    found, places = stretches(
        starts, given, hop_length=hop, segment_length=hop * overlapping, most=most
    )
    assert found.counts.min() >= 1 and found.counts.max() <= most
    at = np.concatenate([s + hop * np.arange(c) for s, c in zip(found.starts, found.counts)])  # noqa: B905
    gains = np.repeat(found.scales, found.counts)
    np.testing.assert_array_equal(at[places], starts)
    np.testing.assert_array_equal(gains[places], given.scales)
    assert len(np.unique(places)) == n
    assert at.max() <= starts[-1]


def test_segments_that_share_nothing_are_in_two_stretches():
    zeros = np.zeros(9, np.float32)
    scales = np.float32([1, 2, 2, 2, 1, 2, 2, 2, 1])  # those of 1 are four hops apart
    for length, wanted in ((40, [1, 1, 1]), (41, [9])):
        given = Levels(zeros, scales, zeros)
        found, _ = stretches(
            10 * np.arange(9), given, hop_length=10, segment_length=length, most=40
        )
        assert found.counts[found.scales == 1].tolist() == wanted


def test_levels_that_are_ignored_are_alike_bit_for_bit():
    found = Levels(np.float32([-1, 1]), np.float32([2, 3]), np.ones(2, np.float32)).ignored()
    assert found.offsets.tobytes() == bytes(8)
    assert found.scales.tolist() == [1, 1]


def test_segments_that_share_no_blocks_take_no_more_memory_than_a_few_of_them():
    waveform = np.random.default_rng(0).normal(size=60_000).astype(np.float32)
    starts = segment_starts(len(waveform), segment_length=16_000, hop_length=33)
    tracemalloc.start()
    found = levels(waveform, starts, segment_length=16_000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 60e6 < 4 * 16_000 * len(starts)
    for i in (0, 400, len(starts) - 1):
        alone = levels(waveform, starts[i : i + 1], segment_length=16_000)
        one = found.offsets[i], found.scales[i], found.peaks[i]
        assert one == (alone.offsets[0], alone.scales[0], alone.peaks[0])


def test_segments_longer_than_what_is_cut_at_a_time_have_levels(monkeypatch):
    monkeypatch.setattr(levels_module, "MOST_CUT", 100)
    waveform = np.random.default_rng(0).normal(size=2_000).astype(np.float32)
    found = levels(waveform, np.array([0, 7, 1_000]), segment_length=1_000)
    np.testing.assert_array_equal(
        found.peaks, [np.abs(waveform[i : i + 1_000]).max() for i in (0, 7, 1_000)]
    )


@pytest.mark.skipif(not native.available(), reason="the kernels are not built")
def test_memory_is_kept_for_few_hops():
    waveform, listening = uneven(3), network("classic")
    for hop in range(1024, 11 * 1024, 1024):
        listening.listen(waveform, np.arange(0, 32_000, hop), hop_length=hop)
    assert len(listening._listener._listeners) <= native.MOST_LISTENERS


def test_one_gain_makes_as_few_stretches_as_may_be():
    zeros = np.zeros(100, np.float32)
    given = Levels(zeros, zeros + 1, zeros)
    starts = 10 * np.arange(100)
    found, _ = stretches(starts, given, hop_length=10, segment_length=160, most=40)
    assert found.counts.tolist() == [34, 34, 32]


def network(preset: str) -> FoldedNetwork:
    """A preset with weights that keep the level, and a unit for "none"."""
    rng = np.random.default_rng(0)
    config = ModelConfig(("cat", "dog"), **preset_sizes(preset))
    kernels = [
        rng.normal(0, math.sqrt(2 / (k * i)), (k, i, o)).astype(np.float32)
        for o, i, k in config.kernel_shapes
    ]
    biases = [rng.normal(0, 0.1, o).astype(np.float32) for o in config.channels]
    head, none = rng.normal(0, 0.3, (2, 1, config.channels[-1])).astype(np.float32)
    one = np.zeros(1, np.float32)
    return FoldedNetwork(config, tuple(kernels), tuple(biases), head, one, none, one)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("hop", [1024, 2048, 4096, 15_360, 4_000, 16_000])
def test_the_timeline_equals_cutting_every_segment_out(hop, preset):
    waveform, listening = uneven(12), network(preset)
    starts = np.arange(0, len(waveform) - 16_000 + 1, hop)
    logits, none, peaks = listening.listen(waveform, starts, hop_length=hop)
    for i, start in enumerate(starts.tolist()):
        segment = waveform[start : start + 16_000]
        alone = listening.listen(segment, np.zeros(1, np.int64), hop_length=16_000)
        *_, last = listening.blocks(listening.prepare(segment[None]))  # in plain NumPy
        by_numpy = last.mean(axis=1) @ listening.head_weight.T + listening.head_bias
        np.testing.assert_allclose(logits[i], alone[0][0], atol=1e-5)
        np.testing.assert_allclose(logits[i], by_numpy[0], atol=1e-4)
        np.testing.assert_allclose(none[i], alone[1][0], atol=1e-5)
        assert peaks[i] == np.abs(segment).max()
