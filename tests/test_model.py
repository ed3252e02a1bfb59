"""The network against numbers worked out by hand and against a plain loop over its definition."""

import json

import numpy as np
import pytest
import torch

from plain_network import Plain, answers
from stapes.config import ModelConfig, TrainingConfig, as_dict, preset_sizes, same_padding
from stapes.engine import NORMALISATION_EPSILON, FoldedNetwork, probabilities
from stapes.errors import UsageError
from stapes.model import Network
from stapes.segments import normalise

CLASSIC = ModelConfig(("cat", "dog"))


def one_block(length: int) -> Network:
    """One filter (1, 10, 100), no bias; normalisation that changes nothing."""
    network = Network(ModelConfig(("a", "b"), n_layers=1, n_filters=1, segment_length=length))
    network.tensors()["convs.0.weight"][:] = [[[1.0, 10.0, 100.0]]]
    network.tensors()["convs.0.bias"][:] = 0
    network.statistics[:] = [[0.0], [1 - NORMALISATION_EPSILON]]
    return network


# TensorFlow's SAME, by hand. Even: one zero behind, so the first window starts at the first
# sample. Odd: one zero at each end, so it starts one before.
BY_HAND = [
    (16, (0, 1), lambda x, i: x(2 * i) + 10 * x(2 * i + 1) + 100 * x(2 * i + 2)),
    (17, (1, 1), lambda x, i: x(2 * i - 1) + 10 * x(2 * i) + 100 * x(2 * i + 1)),
]


@pytest.mark.parametrize(("length", "padding", "expected"), BY_HAND)
def test_same_padding_is_tensorflows(length, padding, expected):
    values = np.arange(1, length + 1, dtype=np.float32)

    def sample(i):
        return values[i] if 0 <= i < length else 0.0

    assert same_padding(length, kernel_size=3, stride=2) == padding
    wanted = [expected(sample, i) for i in range((length + 1) // 2)]
    network = one_block(length)
    folded = FoldedNetwork.fold(network.config, network.tensors())
    (frames,) = folded.activations(values[None])
    np.testing.assert_allclose(frames[0, :, 0], wanted, rtol=1e-5)
    head = network.tensors()
    by_hand = np.mean(wanted) * head["head.weight"] + head["head.bias"]
    np.testing.assert_allclose(answers(network, values[None]), by_hand, rtol=1e-5)


def test_written_out_padding_of_five_and_six():
    five = np.float32([[1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8]])
    network = one_block(17)
    (frames,) = FoldedNetwork.fold(network.config, network.tensors()).activations(five)
    # Windows (0 1 2), (2 3 4), (4 5 6), (6 7 8), (8 9 1), (1 2 3), (3 4 5), (5 6 7), (7 8 0).
    assert frames[0, :, 0].tolist() == [210, 432, 654, 876, 198, 321, 543, 765, 87]


def test_classic_is_the_notebooks_network():
    network = Network(CLASSIC)
    assert len(network.flat) == 3041 == CLASSIC.n_parameters
    assert CLASSIC.layer_lengths[1:] == (8000, 4000, 2000, 1000, 500, 250, 125, 63, 32, 16)
    assert CLASSIC.receptive_field == 2047
    odd = [n for n in CLASSIC.layer_lengths[:-1] if n % 2]
    assert odd == [125, 63]


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_parameters_are_counted_like_torch_does(n_classes):
    classes = tuple(f"class {i}" for i in range(n_classes))
    for layers, filters, kernel in [(1, 4, 3), (4, (7, 2, 9, 3), 5), (10, 10, 3)]:
        config = ModelConfig(classes, n_layers=layers, n_filters=filters, kernel_size=kernel)
        network, parameters = Network(config), Plain(config).parameters()
        assert sum(p.numel() for p in parameters) == config.n_parameters == len(network.flat)
        logits, *_ = network.training_pass(np.zeros((3, 16_000), np.float32))
        assert logits.shape == (3, 1 if n_classes == 2 else n_classes)


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
@pytest.mark.parametrize("preset", ["classic", "small", "large"])
def test_initial_weights_are_those_that_pytorch_draws(preset, seed):
    config = ModelConfig(("a", "b", "c"), **preset_sizes(preset))
    torch.manual_seed(seed)
    wanted = Plain(config, with_none=True).state_dict()
    for name, array in Network(config, seed=seed, with_none=True).tensors().items():
        if "running" not in name:
            assert np.array_equal(array, wanted[name]), name


def test_an_impulse_reaches_exactly_the_receptive_field():
    network = Network(CLASSIC)
    folded = FoldedNetwork.fold(CLASSIC, network.tensors())
    rng = np.random.default_rng(0)
    segment = rng.normal(size=16_000).astype(np.float32)
    frame = 8
    quiet = folded.final_frames(segment[None])[0, frame]
    reached = []
    for position in range(frame * 1024 - 1100, frame * 1024 + 2200, 50):
        changed = segment.copy()
        changed[position] += 100.0
        if not np.array_equal(folded.final_frames(changed[None])[0, frame], quiet):
            reached.append(position)
    assert 0 < max(reached) - min(reached) <= CLASSIC.receptive_field


def random_statistics(network: Network, *, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = network.statistics[0].shape
    network.statistics[:] = rng.uniform(-1, 1, shape), rng.uniform(0.2, 3, shape)
    for name, array in network.tensors().items():
        if name.startswith("norms") and "running" not in name:
            low, high = (0.5, 2) if name.endswith("weight") else (-1, 1)
            array[:] = rng.uniform(low, high, array.shape)


@pytest.mark.parametrize(
    "config",
    [
        CLASSIC,
        ModelConfig(("a", "b", "c"), n_layers=5, n_filters=6, kernel_size=5, stride=4),
        ModelConfig(
            ("a", "b"), n_layers=3, n_filters=(4, 9, 5), kernel_size=(9, 5, 2), stride=(4, 1, 2)
        ),
        ModelConfig(
            ("a", "b"), n_layers=3, n_filters=3, kernel_size=2, stride=3, segment_length=999
        ),
    ],
)
def test_folded_network_equals_torch(config):
    network = Network(config)
    random_statistics(network, seed=1)
    rng = np.random.default_rng(2)
    segments = normalise(rng.normal(size=(5, config.segment_length)).astype(np.float32))
    wanted = answers(network, segments)
    found = FoldedNetwork.fold(config, network.tensors()).logits(segments)
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-4)


def test_with_a_low_cut_nothing_at_0_hz_is_heard_and_little_close_to_it():
    config = ModelConfig(("a", "b"), n_layers=1, n_filters=8)
    taps = Network(config, low_cut=True).tensors()["convs.0.weight"][:, 0]  # [C, K]
    gains = np.abs(np.fft.rfft(taps.astype(np.float64), 16_000))  # [C, 8001], one a Hz
    assert gains[:, 0].max() < 1e-7
    # The gain of three taps rises by twice its highest a radian at most (Bernstein).
    assert (gains[:, 50] < 2 * (2 * np.pi * 50 / 16_000) * gains.max(axis=1)).all()
    network = Network(config, low_cut=True)
    segments = np.random.default_rng(0).normal(size=(2, 16_000)).astype(np.float32)
    frames = [answers(network, segments + np.float32(offset)) for offset in (0.0, 3.0)]
    # All but the one frame that hears the padding are the same.
    np.testing.assert_allclose(*frames, atol=1e-3)


def test_a_filter_of_one_tap_stays_for_it_has_no_other_gain():
    network = Network(ModelConfig(("a", "b"), n_layers=2, kernel_size=(1, 3)), low_cut=True)
    assert network.tensors()["convs.0.weight"].all()


def test_the_unit_for_none_folds_too_and_takes_its_share():
    network = Network(CLASSIC, with_none=True)
    random_statistics(network, seed=1)
    segments = normalise(np.random.default_rng(2).normal(size=(5, 16_000)).astype(np.float32))
    wanted = answers(network, segments)  # [B, 2]: of the second class, and of none
    logits, none = FoldedNetwork.fold(CLASSIC, network.tensors()).logits_and_none(segments)
    np.testing.assert_allclose(
        np.concatenate([logits, none[:, None]], axis=1), wanted, atol=1e-4, rtol=1e-4
    )
    shares = torch.softmax(torch.nn.functional.pad(wanted, (1, 0)), dim=1)[:, :2]
    np.testing.assert_allclose(probabilities(logits, none), shares, atol=1e-4)


def test_probabilities_are_sigmoid_and_softmax():
    logits = np.float32([[-2.0], [0.0], [800.0]])
    wanted = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(probabilities(logits)[:, 1:], wanted, rtol=1e-6)
    logits = np.float32([[1, 2, 3], [-1000, 0, 1000]])
    wanted = torch.softmax(torch.from_numpy(logits), dim=1)
    np.testing.assert_allclose(probabilities(logits), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_layers", 0),
        ("n_filters", 2.5),
        ("kernel_size", -3),
        ("stride", True),
        ("stride", (2,) * 9),
        ("n_filters", (10,) * 9 + (0,)),
        ("sample_rate", float("nan")),
        ("gate", float("nan")),
        ("gate", 1.5),
        ("segment_length", "16000"),
        ("classes", ("one",)),
        ("classes", ("same", "same")),
    ],
)
def test_a_number_out_of_range_is_told_with_its_range(field, value):
    arguments = {"classes": ("a", "b"), field: value}
    with pytest.raises(UsageError, match=field):
        ModelConfig(**arguments)


@pytest.mark.parametrize("preset", ["clasic", ["classic"], None])
def test_what_is_no_preset_is_told_with_those_there_are(preset):
    with pytest.raises(UsageError, match="give one of classic, small, large"):
        preset_sizes(preset)


def test_numpys_numbers_are_kept_as_pythons_own():
    config = ModelConfig(
        ("a", "b"), n_layers=np.int64(2), n_filters=(np.int32(4), np.uint8(6)), gate=np.float32(0.5)
    )
    settings = TrainingConfig(seed=np.int64(3), speed=np.float32(0.25), mixing=1)
    values = [config.n_layers, *config.n_filters, config.gate, settings.seed, settings.speed]
    assert [*values, settings.mixing] == [2, 4, 6, 0.5, 3, 0.25, 1.0]
    assert {type(value) for value in values} == {int, float}
    assert type(settings.mixing) is float
    json.dumps([as_dict(config), as_dict(settings)])


@pytest.mark.parametrize(
    ("preset", "n_classes", "most"),
    [("classic", 2, 3_041), ("classic", 10, 3_140), ("small", 10, 25_000), ("large", 10, 131_000)],
)
def test_presets_are_as_small_as_they_say(preset, n_classes, most):
    config = ModelConfig(tuple(map(str, range(n_classes))), **preset_sizes(preset))
    assert config.n_parameters <= most
    assert config.total_stride == 1024  # timelines every 64 ms share their frames
