"""What a training step must compute, and what it moves if activations lie in memory: formulas."""

from itertools import pairwise
from typing import Any

from stapes.config import ModelConfig

FLOAT_BYTES = 4

ELEMENT_MULTIPLY_ADDS = 7
"""For each activation of each block. Forward: its share of the mean and the variance (2), the
normalisation (1), the ReLU (0). Backward: the normalised value anew (1), its shares of the two sums
of normalisation's gradient (1), that gradient (2)."""

ELEMENT_PASSES = 7
"""How often each activation is read or written as float32. Forward: the convolution's result
written, and read by the next block, which normalises it while reading. Backward: read for the sums
and for the gradient of normalisation; its gradient written once and read twice."""


def forward_multiply_adds(config: ModelConfig) -> int:
    """Of the convolutions, for one segment: sum of T_i * C_out * C_in * K.

    >>> forward_multiply_adds(ModelConfig(("cat", "dog")))
    2635800
    """
    return sum(_block_multiply_adds(config))


def _block_multiply_adds(config: ModelConfig) -> list[int]:
    channels = [1] + [config.n_filters] * config.n_layers
    return [
        length * n_in * n_out * config.kernel_size
        for length, (n_in, n_out) in zip(config.layer_lengths[1:], pairwise(channels), strict=True)
    ]


def step_multiply_adds(config: ModelConfig, *, batch_size: int) -> int:
    """Of one training step: convolutions forward, gradients of weights and inputs, and the rest.

    The gradient of the first block's input is nobody's. The head and the optimiser are small
    (below 0.01 %), and left out.
    """
    blocks = _block_multiply_adds(config)
    activations = config.n_filters * sum(config.layer_lengths[1:])
    convolutions = 3 * sum(blocks) - blocks[0]
    return batch_size * (convolutions + ELEMENT_MULTIPLY_ADDS * activations)


def step_bytes(config: ModelConfig, *, batch_size: int) -> int:
    """Bytes read and written by one training step that keeps activations as float32 in memory.

    Batch statistics need the whole batch before the next block, so a batch that exceeds the
    caches has to go through memory, unless it is computed anew or kept in fewer bits.
    """
    activations = config.n_filters * sum(config.layer_lengths[1:])
    segments = 2 * config.segment_length  # read forward, and for the first weights' gradient
    return FLOAT_BYTES * batch_size * (segments + ELEMENT_PASSES * activations)


def limits(
    config: ModelConfig, *, batch_size: int, peaks: dict[str, float], seconds: float
) -> dict[str, Any]:
    """How long a step takes at least on a machine with these peaks, and how far from that it is."""
    multiply_adds = step_multiply_adds(config, batch_size=batch_size)
    moved = step_bytes(config, batch_size=batch_size)
    computing = multiply_adds / peaks["multiply_adds_a_second"]
    moving = moved / peaks["bytes_a_second"]
    return {
        "forward_multiply_adds_a_segment": forward_multiply_adds(config),
        "multiply_adds": multiply_adds,
        "bytes": moved,
        "peaks": peaks,
        "least_seconds_computing": computing,
        "least_seconds_moving": moving,
        "share_of_peak_multiply_adds": computing / seconds,
        "times_the_limit_of_computing": seconds / computing,
        "times_the_limit_of_moving": seconds / moving,
    }
