"""What stapes does, as calls to time: a training step, whole segments, a long recording."""

from collections.abc import Mapping

import numpy as np

import sounds
from stapes import training
from stapes.batches import Batch, batches
from stapes.config import ModelConfig, TrainingConfig
from stapes.engine import FoldedNetwork
from stapes.generator import Examples
from stapes.inference import BLOCK_SECONDS, SegmentOutputs, segment_outputs
from stapes.model import Network
from stapes.segments import Waveform
from timing import Call

CLASSES = ("bark", "meow")
N_CLIPS = 24


def training_steps(config: ModelConfig, settings: TrainingConfig) -> tuple[Call, Call]:
    """Two calls: a step with all that belongs to it, and one that finds its batch ready.

    All is: segments drawn, sounds of none of the classes made up, every segment varied, the
    step, and the averaged weights.
    """
    clips = sounds.calls(N_CLIPS)
    names = [str(i) for i in range(N_CLIPS)]
    targets = [target for target, _ in clips]
    known = Examples(names, [waveform for _, waveform in clips], targets, sources=names)
    coming = batches(config, settings, known, Examples([], [], [], []), first_step=0)
    whole, alone = (training._begin(config, settings) for _ in range(2))

    def step(state: training.State, batch: Batch) -> None:
        training._take_step(state, settings, batch, names=names)

    ready = next(coming)
    return lambda: step(whole, next(coming)), lambda: step(alone, ready)


def training_loss(
    config: ModelConfig, weights: Mapping[str, Waveform], x: Waveform, y: Waveform
) -> float:
    """What training finds of these weights, of :func:`peers.arrays`, before its first step.

    Args:
        config: of two classes.
        weights: by name.
        x: segments [B, T].
        y: targets [B, 1].
    """
    network = Network(config)
    network.flat[:] = np.concatenate([weights[name].ravel() for name in network._shapes])
    logits, *_ = network.training_pass(x)
    return float(np.mean(np.logaddexp(0, logits) - y * logits))


def settings(*, batch_size: int) -> TrainingConfig:
    """The defaults but for the batch, and epochs enough for any benchmark."""
    return TrainingConfig(batch_size=batch_size, epochs=100_000)


def random_network(config: ModelConfig) -> FoldedNetwork:
    """A network with weights drawn so that its activations neither vanish nor grow."""
    rng = np.random.default_rng(3)
    kernels, biases = [], []
    for n_out, n_in, kernel_size in config.kernel_shapes:
        shape = (kernel_size, n_in, n_out)
        scale = np.float32(np.sqrt(2 / (kernel_size * n_in)))
        kernels.append(rng.standard_normal(shape, np.float32) * scale)
        biases.append(rng.standard_normal(n_out, np.float32) * np.float32(0.1))
    head = rng.standard_normal((config.n_outputs, config.channels[-1]), np.float32)
    bias = np.zeros(config.n_outputs, np.float32)
    return FoldedNetwork(config, tuple(kernels), tuple(biases), head, bias)


def timeline(network: FoldedNetwork, waveform: Waveform, *, hop_length: int) -> SegmentOutputs:
    """What the network says of every segment of a recording that comes in blocks."""
    length = round(BLOCK_SECONDS * network.config.sample_rate)
    blocks = (waveform[start : start + length] for start in range(0, len(waveform), length))
    return segment_outputs(network, blocks, hop_length=hop_length)
