"""Cutting, the gate and the generator against brute force."""

import itertools
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes import segments as s
from stapes.generator import Examples, SegmentGenerator


def test_normalised_segments_have_mean_zero_and_rms_one_whatever_their_level():
    rng = np.random.default_rng(0)
    segments = rng.normal(0.3, 0.1, (4, 500)).astype(np.float32)
    normal = s.normalise(segments)
    np.testing.assert_allclose(normal.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(np.square(normal).mean(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(s.normalise(segments * np.float32(0.01)), normal, atol=1e-3)


@pytest.mark.parametrize("constant", [0.0, 0.5, -1.0])
def test_silence_and_constants_become_finite_zeros(constant):
    normal = s.normalise(np.full((2, 100), constant, np.float32))
    np.testing.assert_allclose(normal, 0, atol=1e-3)


@pytest.mark.parametrize(
    ("n_samples", "hop", "wanted"),
    [
        (10, 4, [0]),
        (3, 4, [0]),
        (0, 4, [0]),
        (18, 4, [0, 4, 8]),
        (17, 4, [0, 4, 7]),
        (20, 10, [0, 10]),
        (11, 10, [0, 1]),
    ],
)
def test_segments_lie_inside_the_waveform(n_samples, hop, wanted):
    assert s.segment_starts(n_samples, segment_length=10, hop_length=hop).tolist() == wanted


@given(st.integers(1, 200), st.integers(1, 50), st.data())
def test_every_sample_is_in_a_segment(n_samples, length, data):
    hop = data.draw(st.integers(1, length))
    starts = s.segment_starts(n_samples, segment_length=length, hop_length=hop).tolist()
    heard = {i for start in starts for i in range(start, start + length)}
    assert set(range(n_samples)) <= heard
    assert starts == [0] or max(heard) == n_samples - 1
    assert all(a < b for a, b in itertools.pairwise(starts))


def test_cut_pads_short_waveforms_behind():
    found = s.cut(np.float32([1, 2]), np.array([0]), segment_length=4)
    assert found.tolist() == [[1, 2, 0, 0]]


def starts_by_rejection(waveform, length, gate):
    """Every start whose segment's peak passes, tried one after the other."""
    peak = np.abs(waveform).max()
    starts = range(max(len(waveform) - length, 0) + 1)
    return [i for i in starts if np.abs(waveform[i : i + length]).max() >= gate * peak]


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.39, 0.4, -0.7, 1.0]), min_size=1, max_size=60),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.4, 1.0]),
)
def test_gated_intervals_are_what_rejection_keeps(values, length, gate):
    waveform = np.array(values, np.float32)
    intervals = s.gated_intervals(waveform, segment_length=length, gate=np.float32(gate))
    found = [i for low, high in intervals for i in range(low, high)]
    assert found == starts_by_rejection(waveform, length, np.float32(gate))


def examples(waveforms, targets, sources=string.ascii_lowercase):
    names = [f"{i}.wav" for i in range(len(targets))]
    return Examples(names, waveforms, targets, sources[: len(targets)])


def make_generator(**changes):
    rng = np.random.default_rng(1)
    waveforms = [rng.normal(size=n).astype(np.float32) for n in (700, 300, 50, 400)]
    options = {"segment_length": 100, "gate": 0.4, "seed": 3} | changes
    return waveforms, SegmentGenerator(examples(waveforms, [0, 0, 1, 1]), **options)


def test_a_batch_depends_on_seed_and_step_alone():
    _, one = make_generator()
    _, other = make_generator()
    for step in (5, 0, 9, 5):
        one.batch(step, batch_size=8)
    again, first = one.batch(7, batch_size=8), other.batch(7, batch_size=8)
    np.testing.assert_array_equal(again.segments, first.segments)
    np.testing.assert_array_equal(again.targets, first.targets)
    _, reseeded = make_generator(seed=4)
    assert not np.array_equal(reseeded.batch(7, batch_size=8).segments, first.segments)


def test_segments_are_pieces_of_their_clip_that_pass_the_gate():
    waveforms, generator = make_generator()
    seen = set()
    for step in range(40):
        batch = generator.batch(step, batch_size=8)
        for segment, target, clip in zip(*vars_of(batch), strict=True):
            seen.add(int(clip))
            assert target == (clip >= 2)
            waveform = waveforms[clip]
            if len(waveform) < 100:
                held = np.flatnonzero(segment)
                np.testing.assert_array_equal(segment[held[0] : held[-1] + 1], waveform)
                continue
            views = np.lib.stride_tricks.sliding_window_view(waveform, 100)
            assert (views == segment).all(axis=1).any()
            assert np.abs(segment).max() >= 0.4 * np.abs(waveform).max()
    assert seen == {0, 1, 2, 3}


def vars_of(batch):
    return batch.segments, batch.targets, batch.clips


def test_speed_changes_the_pitch_by_up_to_its_share():
    time = np.arange(4000) / 1000
    tone = np.sin(2 * np.pi * 100 * time).astype(np.float32)
    generator = SegmentGenerator(
        examples([tone, tone], [0, 1]), segment_length=1000, gate=0, speed=0.2
    )
    segments = generator.batch(0, batch_size=64).segments
    tones = np.abs(np.fft.rfft(segments * np.hanning(1000))).argmax(axis=1)  # Hz
    assert tones.min() >= 79
    assert tones.max() <= 121
    assert len(set(tones.tolist())) > 10


def test_classes_come_equally_often_however_many_clips_they_have():
    rng = np.random.default_rng(0)
    waveforms = [rng.normal(size=200).astype(np.float32) for _ in range(20)]
    clips = examples(waveforms, [0] * 18 + [1] * 2)
    generator = SegmentGenerator(clips, segment_length=100, gate=0)
    targets = np.concatenate([generator.batch(i, batch_size=50).targets for i in range(40)])
    assert abs(targets.mean() - 0.5) < 0.04  # 2000 draws: 3.6 standard errors


def test_a_source_of_very_many_clips_counts_as_several():
    rng = np.random.default_rng(0)
    waveforms = [rng.normal(size=200).astype(np.float32) for _ in range(33)]
    clips = Examples("x" * 33, waveforms, [0] * 32 + [1], "a" * 31 + "b" + "c")
    generator = SegmentGenerator(clips, segment_length=100, gate=0)
    drawn = np.concatenate([generator.batch(i, batch_size=60).clips for i in range(100)])
    shares = np.bincount(drawn, minlength=33) / len(drawn)
    assert shares[31] == pytest.approx(1 / 8, abs=0.015)  # of the class: a three times, b once
    np.testing.assert_allclose(shares[:31], 3 / 8 / 31, atol=0.006)


def test_sources_of_a_class_come_equally_often_however_many_clips_they_have():
    rng = np.random.default_rng(0)
    waveforms = [rng.normal(size=200).astype(np.float32) for _ in range(9)]
    clips = examples(waveforms, [0] * 5 + [1] * 4, "aaaabbccd")  # b has a clip of each class
    generator = SegmentGenerator(clips, segment_length=100, gate=0)
    clips = np.concatenate([generator.batch(i, batch_size=60).clips for i in range(100)])
    shares = np.bincount(clips, minlength=9) / len(clips)
    wanted = [1 / 16] * 4 + [1 / 4] + [1 / 6, 1 / 12, 1 / 12, 1 / 6]
    np.testing.assert_allclose(shares, wanted, atol=0.02)  # 6000 draws: 3.5 standard errors
