"""What a training step must compute, and what it moves if activations lie in memory: formulas."""

import math
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


def step_multiply_adds(config: ModelConfig, *, batch_size: int) -> int:
    """Of one training step: convolutions forward, gradients of weights and inputs, and the rest.

    The gradient of the first block's input is nobody's. The head and the optimiser are small
    (below 0.01 %), and left out.
    """
    first = config.layer_lengths[1] * math.prod(config.kernel_shapes[0])
    convolutions = 3 * config.n_multiply_adds - first
    activations = n_activations(config)
    return batch_size * (convolutions + ELEMENT_MULTIPLY_ADDS * activations)


def n_activations(config: ModelConfig) -> int:
    """Of one segment: sum of T_i * C_i."""
    frames = zip(config.layer_lengths[1:], config.channels, strict=True)
    return sum(length * channels for length, channels in frames)


def step_bytes(config: ModelConfig, *, batch_size: int) -> int:
    """Bytes read and written by one training step that keeps activations as float32 in memory.

    Batch statistics need the whole batch before the next block, so a batch that exceeds the
    caches has to go through memory, unless it is computed anew or kept in fewer bits.
    """
    activations = n_activations(config)
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
        "forward_multiply_adds_a_segment": config.n_multiply_adds,
        "multiply_adds": multiply_adds,
        "bytes": moved,
        "peaks": peaks,
        "least_seconds_computing": computing,
        "least_seconds_moving": moving,
        "share_of_peak_multiply_adds": computing / seconds,
        "times_the_limit_of_computing": seconds / computing,
        "times_the_limit_of_moving": seconds / moving,
    }
