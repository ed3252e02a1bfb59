"""Inference by the kernels against plain sums in float64, segment by segment, on every build."""

import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes import native
from stapes.config import same_padding
from stapes.native import Listener, Stretches

if not native.available():
    pytest.skip("the native kernels are not built", allow_module_level=True)

CLASSIC = {"channels": [10] * 10, "kernels": [3] * 10, "strides": [2] * 10, "length": 16_000}


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def build(request, monkeypatch):
    """Each build in turn; one that the processor lacks falls back to the next."""
    monkeypatch.setenv("STAPES_KERNELS", request.param)


def random_network(rng, channels, kernels):
    sizes = list(zip([1, *channels], channels, kernels, strict=False))
    weights = [rng.normal(size=(o, i, k), scale=(2 / (i * k)) ** 0.5) for i, o, k in sizes]
    biases = [rng.normal(0, 0.3, size=o) for o in channels]
    return [w.astype(np.float32) for w in weights], [b.astype(np.float32) for b in biases]


def by_definition(segments, weights, biases, strides):
    """Folded blocks in float64, straight from the definition: [N, T] -> [N, T_last, C]."""
    y = segments.astype(np.float64)[:, None]
    for w, b, stride in zip(weights, biases, strides, strict=True):
        padded = np.pad(
            y, ((0, 0), (0, 0), same_padding(y.shape[2], kernel_size=w.shape[2], stride=stride))
        )
        views = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2], axis=2)[:, :, ::stride]
        y = np.maximum(np.einsum("nctk,ock->not", views, w) + b[:, None], 0)
    return y.transpose(0, 2, 1)


def check(seed, counts, *, channels, kernels, strides, length, hops=1, n_threads=2):
    """Stretches of one long waveform, each at its own gain, against each segment cut out."""
    rng = np.random.default_rng(seed)
    weights, biases = random_network(rng, channels, kernels)
    listener = Listener(weights, biases, strides=strides, segment_length=length)
    hop = hops * math.prod(strides)
    counts = np.minimum(counts, listener.most(hop))
    waveform = rng.normal(size=length + hop * max(counts) + 50).astype(np.float32)
    n = len(counts)
    starts = rng.integers(0, 50, n)
    offsets, scales = rng.normal(size=(2, n)).astype(np.float32)
    given = Stretches(starts, counts, offsets, scales)
    found = listener.pooled(waveform, given, hop_length=hop, n_threads=n_threads)
    segments = [
        (waveform[start + j * hop :][:length] - offset) * scale
        for start, count, offset, scale in zip(starts, counts, offsets, scales, strict=True)
        for j in range(count)
    ]
    wanted = by_definition(np.stack(segments), weights, biases, strides).mean(axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * (1 + np.abs(wanted).max()))


def test_a_dense_timeline_of_the_classic_network(build):
    check(0, [1, 7, 40], **CLASSIC)
    check(1, [5], **CLASSIC, hops=4)


@pytest.mark.parametrize("length", [15_999, 16_001, 5_000])
def test_odd_lengths_pad_at_both_ends(build, length):
    check(length, [9], **(CLASSIC | {"length": length}))


@pytest.mark.parametrize(
    "shape",
    [
        {"channels": [25] * 7, "kernels": [5] * 7, "strides": [2] * 7, "length": 4_001},
        {"channels": [16, 24, 31], "kernels": [64, 5, 4], "strides": [8, 4, 2], "length": 3_003},
        {"channels": [64, 64], "kernels": [9, 3], "strides": [2, 2], "length": 333},
        {"channels": [5], "kernels": [3], "strides": [2], "length": 77},
        {"channels": [3, 4], "kernels": [20, 9], "strides": [16, 16], "length": 2_000},
    ],
)
def test_the_family(build, shape):
    check(1, [1, 12, 3], **shape)


@pytest.mark.parametrize(
    "shape",
    [
        {"channels": [4] * 3, "kernels": [1, 1, 255], "strides": [1] * 3, "length": 384},
        {"channels": [3] * 10, "kernels": [129] * 10, "strides": [2] * 10, "length": 16_000},
    ],
)
@pytest.mark.parametrize("counts", [[1] * 4, [2, 3, 1]])
def test_filters_as_wide_as_a_block_leave_the_next_segment_alone(build, shape, counts):
    check(2, counts, **shape, n_threads=1)


def test_answers_do_not_depend_on_who_shares_a_stretch(build):
    weights, biases = random_network(np.random.default_rng(5), [10] * 10, [3] * 10)
    listener = Listener(weights, biases, strides=[2] * 10, segment_length=16_000)
    waveform = np.random.default_rng(6).normal(size=16_000 + 11 * 1_024).astype(np.float32)

    def pooled(counts):
        starts, gain = 1_024 * (np.cumsum(counts) - counts), np.ones(len(counts), np.float32)
        given = Stretches(starts, np.array(counts), 0 * gain, gain)
        return listener.pooled(waveform, given, hop_length=1_024, n_threads=2)

    np.testing.assert_array_equal(pooled([12]), pooled([1, 5, 1, 1, 4]))


shapes = st.integers(1, 5).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "channels": st.lists(st.integers(1, 20), min_size=n, max_size=n),
            "kernels": st.lists(st.integers(1, 9), min_size=n, max_size=n),
            "strides": st.lists(st.sampled_from([1, 2, 4]), min_size=n, max_size=n),
            "length": st.integers(1, 2_000),
        }
    )
)


@settings(max_examples=80, derandomize=True)
@given(
    shapes,
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
)
def test_random_shapes(shape, counts, hops, n_threads, seed):
    check(seed, counts, **shape, hops=hops, n_threads=n_threads)


def test_what_is_shared_is_said():
    classic = random_network(np.random.default_rng(0), [10] * 10, [3] * 10)
    listener = Listener(*classic, strides=[2] * 10, segment_length=16_000)
    assert listener.most(1024) > 100
    assert listener.most(4096) > 20
    assert listener.most(4000) == 1  # frames of the later blocks lie elsewhere
    assert listener.most(16_384) == 1  # nothing overlaps
    weights = random_network(np.random.default_rng(0), [4] * 3, [255] * 3)
    wide = Listener(*weights, strides=[2] * 3, segment_length=500)
    assert wide.most(8) == 1  # every frame feels the padding


def test_frames_of_segments_that_stand_alone(build):
    rng = np.random.default_rng(0)
    weights, biases = random_network(rng, [10] * 4, [3] * 4)
    segments = rng.normal(size=(5, 999)).astype(np.float32)
    wanted = by_definition(segments, weights, biases, [2] * 4)
    frames = np.full(wanted.shape, np.nan, np.float32)
    listener = Listener(weights, biases, strides=[2] * 4, segment_length=999)
    alone = Stretches.alone(999 * np.arange(5))
    pooled = listener.pooled(segments.ravel(), alone, hop_length=999, n_threads=2, frames=frames)
    np.testing.assert_allclose(frames, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pooled, wanted.mean(axis=1), rtol=1e-4, atol=1e-5)
    again = pickle.loads(pickle.dumps(listener))
    same = again.pooled(segments.ravel(), alone, hop_length=999, n_threads=1)
    assert same.tobytes() == pooled.tobytes()


def test_not_a_number_stays_one(build):
    weights, biases = random_network(np.random.default_rng(0), [10] * 4, [3] * 4)
    listener = Listener(weights, biases, strides=[2] * 4, segment_length=500)
    broken = np.zeros(1_000, np.float32)
    broken[700] = np.nan
    alone = Stretches.alone(np.array([0, 500]))
    pooled = listener.pooled(broken, alone, hop_length=500, n_threads=1)
    assert np.isfinite(pooled[0]).all() and np.isnan(pooled[1]).any()
    again = listener.pooled(np.zeros(1_000, np.float32), alone, hop_length=500, n_threads=1)
    assert np.isfinite(again).all()  # nothing is left of it


@pytest.mark.parametrize("n_threads", [1, 3])
def test_no_stretches_give_no_answers(n_threads):
    weights, biases = random_network(np.random.default_rng(0), [4], [3])
    listener = Listener(weights, biases, strides=[2], segment_length=100)
    none = Stretches.alone(np.zeros(0, np.int64))
    found = listener.pooled(np.zeros(500, np.float32), none, hop_length=100, n_threads=n_threads)
    assert found.shape == (0, 4)


def test_stretches_outside_are_refused():
    weights, biases = random_network(np.random.default_rng(0), [10] * 4, [3] * 4)
    listener = Listener(weights, biases, strides=[2] * 4, segment_length=500)
    waveform = np.zeros(1_000, np.float32)

    def pooled(start, count, *, n_threads=1, frames=None):
        gain = np.ones(1, np.float32)
        given = Stretches(np.array([start]), np.array([count]), 0 * gain, gain)
        return listener.pooled(waveform, given, hop_length=16, n_threads=n_threads, frames=frames)

    assert pooled(484, 2).shape == (2, 10)
    for start, count in [(-1, 1), (501, 1), (485, 2), (0, 0), (0, 10_000), (2**63 - 1, 1)]:
        with pytest.raises(ValueError, match="lies outside"):
            pooled(start, count)
    uneven = Stretches(np.zeros(2, np.int64), np.ones(1, np.int64), np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match="equally many"):
        listener.pooled(waveform, uneven, hop_length=16, n_threads=1)
    with pytest.raises(ValueError, match="n_threads"):
        pooled(0, 1, n_threads=0)
    with pytest.raises(ValueError, match="frames has shape"):
        pooled(0, 1, frames=np.zeros((1, 31, 10), np.float32))
    with pytest.raises(TypeError):
        pooled(0, 1, frames=np.zeros((1, 32, 10)))


@settings(max_examples=50, derandomize=True)
@given(st.sampled_from([0, 1, 20, 9_001]), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_blocks_are_described(n_blocks, length, seed):
    blocks = np.random.default_rng(seed).normal(3, 1, (n_blocks, length)).astype(np.float32)
    means, squares, peaks = native.describe(blocks, n_threads=3)
    exact = blocks.astype(np.float64)
    np.testing.assert_allclose(means, exact.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(squares, exact.var(axis=1) * length, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(peaks, np.abs(blocks).max(axis=1, initial=0))


FORK = """
import os, signal, threading
import numpy as np
import stapes

wave = np.random.default_rng(0).normal(size=16_000 * 60).astype(np.float32) * 0.1
classifier = stapes.load("cats-dogs")
told = classifier.predict(wave[:32_000], hop="dense").probability
threading.Thread(
    target=lambda: [classifier.predict(wave, hop="dense") for _ in range(10**6)], daemon=True
).start()
ends = []
for _ in range(8):
    if (child := os.fork()) == 0:
        signal.alarm(20)
        os._exit(classifier.predict(wave[:32_000], hop="dense").probability != told)
    ends.append(os.waitpid(child, 0)[1])
print(ends, flush=True)
os._exit(0)
"""


def test_a_fork_answers_whatever_its_parent_was_at():
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=240, check=True
    )
    assert done.stdout.strip() == str([0] * 8)
