import numpy as np
import pytest

from stapes import inspection
from stapes.config import ModelConfig
from stapes.engine import FoldedNetwork, probabilities
from stapes.inference import load
from stapes.segments import cut, passes_gate

CLASSES = tuple("abcdefghij")


def make_network(n_classes=2, *, seed=0, **settings):
    config = ModelConfig(CLASSES[:n_classes], **settings)
    rng = np.random.default_rng(seed)
    n, k = config.n_filters, config.kernel_size

    def draw(*shape, scale):
        return rng.normal(0, scale, shape).astype(np.float32)

    widths = [1, *[n] * config.n_layers]
    return FoldedNetwork(
        config,
        tuple(draw(k, c, n, scale=(2 / (k * c)) ** 0.5) for c in widths[:-1]),
        tuple(draw(n, scale=0.1) for _ in range(config.n_layers)),
        draw(config.n_outputs, n, scale=2.0),
        draw(config.n_outputs, scale=1.0),
    )


def make_clip(n_samples=40_000, *, seed=1):
    rng = np.random.default_rng(seed)
    loudness = np.interp(np.linspace(0, 1, n_samples), [0.6, 0.8, 1], [0.02, 0.5, 0.3])
    return (loudness * rng.uniform(-1, 1, n_samples)).astype(np.float32)


GEOMETRIES = [
    {"segment_length": 1000, "n_layers": 6},
    {"segment_length": 999, "n_layers": 4, "kernel_size": 5},
    {"segment_length": 640, "n_layers": 3, "kernel_size": 7, "stride": 4},
    {"segment_length": 729, "n_layers": 4, "kernel_size": 3, "stride": 3},
    {"segment_length": 512, "n_layers": 4, "kernel_size": 4, "stride": 2},
]


@pytest.mark.parametrize("settings", GEOMETRIES)
def test_frame_centres_are_the_middle_of_the_impulses_that_reach_a_frame(settings):
    config = ModelConfig(("a", "b"), n_filters=1, **settings)
    k, n_layers = config.kernel_size, config.n_layers
    network = FoldedNetwork(
        config,
        tuple(np.ones((k, 1, 1), np.float32) for _ in range(n_layers)),
        tuple(np.zeros(1, np.float32) for _ in range(n_layers)),
        np.ones((1, 1), np.float32),
        np.zeros(1, np.float32),
    )
    impulses = np.eye(config.segment_length, dtype=np.float32)  # one impulse a row
    centres = inspection.frame_centres(config)
    compared = 0
    for activations, centre in zip(network.activations(impulses), centres[1:], strict=True):
        assert activations.shape[1] == len(centre)
        for t in range(len(centre)):
            reached = np.flatnonzero(activations[:, t, 0])
            if reached[0] > 0 and reached[-1] < config.segment_length - 1:
                assert centre[t] == (reached[0] + reached[-1]) / 2
                compared += 1
    assert compared > 100


def test_frame_centres_of_the_classic_network_at_the_border_see_the_padding():
    last = inspection.frame_centres(ModelConfig(("a", "b")))[-1]
    # 639 = 127 from seven blocks padded behind only, 0 from two padded on both sides, 512.
    assert last.tolist() == [639 + 1024 * t for t in range(16)]


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("hop_length", [None, 4000, 777])
def test_contributions_add_up_to_the_logits(n_classes, hop_length):
    network = make_network(n_classes)
    clip = make_clip()
    found = inspection.explain_waveform(network, clip, hop_length=hop_length)
    segments = cut(clip, found.starts, segment_length=16_000)
    direct = network.logits(network.prepare(segments)).astype(np.float64)
    shares = probabilities(network.logits(network.prepare(segments)))
    if n_classes > 2:
        direct -= direct.mean(axis=1, keepdims=True)
    voting = passes_gate(np.abs(segments).max(axis=1), gate=network.config.gate)
    assert 0 < voting.sum() < len(voting)
    np.testing.assert_array_equal(found.voting, voting)
    np.testing.assert_allclose(found.segment_probabilities, shares, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, shares[voting].mean(axis=0), atol=1e-5)

    wanted = direct[voting].mean(axis=0)  # [R]
    line = found.timeline
    seen = line.shares > 0
    assert abs(line.shares.sum() - 1) < 1e-12
    assert not seen[:3].any() and seen[-3:].all()  # too quiet at first
    assert np.isnan(line.evidence[:, ~seen]).all()
    assert np.abs(line.evidence[:, seen] @ line.shares[seen] - wanted).max() < 1e-5
    assert np.abs(found.logits - wanted).max() < 1e-5

    one = found.segment
    index = list(found.starts).index(round(one.start_seconds * 16_000))
    frames, filters = one.frame_contributions.sum(axis=1), one.filter_contributions.sum(axis=1)
    assert np.abs(frames + found.head_bias - direct[index]).max() < 1e-5
    assert np.abs(filters + found.head_bias - direct[index]).max() < 1e-5
    assert np.abs(one.logits - direct[index]).max() < 1e-5


def test_the_segment_shown_votes_and_speaks_loudest_for_the_label():
    found = inspection.explain_waveform(make_network(3), make_clip())
    target = CLASSES.index(found.label)
    voting = found.segment_probabilities[found.voting, target]
    assert found.row == target
    assert found.segment.probabilities[target] == pytest.approx(voting.max(), abs=1e-6)
    assert found.probability == pytest.approx(found.probabilities.max())


def test_a_single_segment_keeps_its_frames_in_order_and_place():
    found = inspection.explain_waveform(make_network(), make_clip(16_000))
    step, line = found.segment.frame_contributions, found.timeline
    np.testing.assert_allclose(line.evidence, found.head_bias + 16 * step, atol=1e-5)
    np.testing.assert_allclose(line.times_seconds, found.segment.times_seconds[-1])
    assert line.step_seconds == 0.064


@pytest.mark.parametrize("n_samples", [16_001, 16_511, 16_512, 27_777, 80_000])
@pytest.mark.parametrize("hop_length", [None, 4096])
def test_moments_are_heard_to_the_end(n_samples, hop_length):
    noise = np.random.default_rng(0).uniform(-1, 1, n_samples).astype(np.float32)
    found = inspection.explain_waveform(make_network(), noise, hop_length=hop_length)
    assert found.voting.all()
    assert (found.timeline.shares > 0).all()
    behind = n_samples / 16_000 - found.timeline.times_seconds[-1]
    last = 1 - found.segment.times_seconds[-1][-1] + found.segment.start_seconds
    assert behind == pytest.approx(last, abs=0.0321)  # half a step


def test_a_short_clip_is_padded_and_silence_stays_finite():
    found = inspection.explain_waveform(make_network(), np.zeros(100, np.float32))
    assert (found.n_samples, len(found.waveform)) == (100, 16_000)
    assert np.isfinite(found.timeline.evidence).all()
    assert np.isfinite(found.probabilities).all()


def test_activations_and_times_of_every_layer_match():
    found = inspection.explain_waveform(make_network(), make_clip()).segment
    lengths = [16000, 8000, 4000, 2000, 1000, 500, 250, 125, 63, 32, 16]
    assert [len(t) for t in found.times_seconds] == lengths
    assert [a.shape for a in found.activations] == [(n, 10) for n in lengths[1:]]
    spacings = [np.diff(t).mean() * 16_000 for t in found.times_seconds]
    np.testing.assert_allclose(spacings, [2**i for i in range(11)], rtol=1e-9)
    np.testing.assert_allclose(found.pooled, found.activations[-1].mean(axis=0), rtol=1e-5)


def test_first_layer_responses_are_the_gain_of_tones():
    network = make_network()
    raw = np.ones((10, 1, 3), np.float32)
    first = inspection.first_layer(network, raw_kernels=raw)
    assert first.raw_kernels is not None and first.raw_kernels.shape == (10, 3)
    np.testing.assert_allclose(first.tap_ms, [-0.0625, 0, 0.0625])
    assert (first.frequencies_hz[0], first.frequencies_hz[-1]) == (0, 8000)
    t = np.arange(4096)
    for index in (16, 100, 200):
        tone = np.sin(2 * np.pi * first.frequencies_hz[index] / 16_000 * t)
        for kernel, responses in zip(network.kernels[0][:, 0].T, first.responses_db, strict=True):
            heard = np.convolve(tone, kernel, mode="valid")
            gain_db = 10 * np.log10(np.mean(heard**2) / np.mean(tone**2))
            assert responses[index] == pytest.approx(gain_db, abs=0.1)


def test_an_exact_zero_of_a_filter_is_shown_at_the_floor():
    network = make_network(n_layers=1, n_filters=1)
    kernel = np.float32([1, 0, 1])[:, None, None]  # zero at a quarter of the sample rate
    first = inspection.first_layer(
        FoldedNetwork(network.config, (kernel,), *[network.biases], *[network.head_weight] * 2)
    )
    assert first.responses_db[0, 128] == inspection.FLOOR_DB
    assert first.responses_db[0, 0] == pytest.approx(20 * np.log10(2))


def test_drawing_aids_keep_the_extremes():
    clip = make_clip(10_007)
    low, high = inspection.envelope(clip, n_columns=100)
    assert (len(low), low.min(), high.max()) == (100, clip.min(), clip.max())
    assert len(inspection.envelope(clip[:7], n_columns=100)[0]) == 7
    activations = np.abs(make_clip(1003)).reshape(-1, 1)
    columns, group = inspection.strongest_columns(activations, n_columns=100)
    assert (group, columns.shape) == (11, (92, 1))
    assert columns[3, 0] == activations[33:44].max()


def test_a_constant_has_no_vote_as_in_prediction():
    classifier = load("cats-dogs")
    noise = 0.05 * np.random.default_rng(0).normal(size=40_000).astype(np.float32)
    clip = np.concatenate([np.full(80_000, 0.4, np.float32), noise])
    found = inspection.explain_waveform(
        classifier.network,
        clip,
        hop_length=classifier.hop_length(None),
        clip_temperature=classifier.model.calibration.clip_temperature,
    )
    assert found.voting.tolist() == (found.starts + 16_000 > 80_000).tolist()
    told = list(classifier.predict(clip).probabilities.values())
    np.testing.assert_allclose(found.probabilities, told, atol=1e-5)
