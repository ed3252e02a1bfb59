"""A training pass of the network by the kernels, with the head in NumPy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, Self

import numpy as np

from stapes import native
from stapes.engine import NORMALISATION_EPSILON
from stapes.native import Array
from stapes.threads import thread_count


def can_run(x: object, blocks: native.Blocks) -> bool:
    """Whether the kernels do this pass: of 32-bit arrays of NumPy, and strides that they know.

    Warns:
        RuntimeWarning: they would, but are not installed.
    """
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        return False
    if not set(blocks.strides) <= set(native.STRIDES):
        return False
    if not native.available():
        native.warn_missing("PyTorch")
    return native.available()


@dataclass(frozen=True, slots=True)
class NativePass:
    """What the kernels found in one forward pass, and their backward pass.

    The convolutions' biases are left out, for normalisation takes them away again: they have
    a gradient of zero.

    Attributes:
        logits: [B, N].
        statistics: mean and unbiased variance of every convolution's output [2, sum of channels].
        run: the forward pass.
        weight: of the head [N, C].
    """

    logits: Array
    statistics: Array
    run: native.Forward
    weight: Array

    @classmethod
    def of(cls, x: Array, flat: Array, blocks: native.Blocks, scratch: native.Scratch) -> Self:
        """The forward pass.

        Args:
            x: [B, T] normalised segments.
            flat: all parameters: the blocks', the convolutions' biases, the head's weights [N, C]
                and biases [N].
            blocks: how those of the blocks lie.
            scratch: memory for the passes; keep it beside the parameters.
        """
        trunk, _, weight, bias = pieces(flat, sizes(len(flat), blocks))
        run = native.trunk_train_forward(
            x,
            trunk,
            blocks,
            epsilon=NORMALISATION_EPSILON,
            n_threads=thread_count(),
            scratch=scratch,
        )
        weight = weight.reshape(len(bias), -1).copy()
        statistics = run.statistics * _unbiased(blocks, *x.shape)
        return cls(run.pooled @ weight.T + bias, statistics, run, weight)

    def gradient(self, d_logits: Array) -> Array:
        """Of all parameters, from that of the logits [B, N]; once."""
        d, run = d_logits, self.run
        n_parameters = run.blocks.n_parameters + sum(run.blocks.channels)
        gradient = np.zeros(n_parameters + self.weight.size + d.shape[1], np.float32)
        parts = pieces(gradient, sizes(len(gradient), run.blocks))
        d_trunk, _, d_weight, d_bias = parts
        d_weight[:], d_bias[:] = (d.T @ run.pooled).ravel(), d.sum(axis=0)
        native.trunk_train_backward(run, d @ self.weight, n_threads=thread_count(), out=d_trunk)
        return gradient


def sizes(n_parameters: int, blocks: native.Blocks) -> list[int]:
    """Of the four parts of the flat array."""
    n_blocks, n_biases = blocks.n_parameters, sum(blocks.channels)
    n_pooled = blocks.channels[-1]
    n_logits = (n_parameters - n_blocks - n_biases) // (n_pooled + 1)
    return [n_blocks, n_biases, n_logits * n_pooled, n_logits]


def pieces(flat: Any, sizes: Sequence[int]) -> list[Any]:
    """Of an array of either library, one after another, as views."""
    return [flat[begin:end] for begin, end in pairwise(accumulate(sizes, initial=0))]


@lru_cache(maxsize=4)
def _unbiased(blocks: native.Blocks, batch: int, length: int) -> Array:
    """What makes of each channel's mean the same, and of its biased variance the unbiased.

    That over n numbers is n / (n - 1) times as large.

    Returns:
        [2, sum of channels].
    """
    numbers = []
    for stride in blocks.strides:
        length = -(-length // stride)
        numbers.append(batch * length)
    n = np.repeat(np.array(numbers, np.float32), blocks.channels)
    return np.stack([np.ones_like(n), n / np.maximum(n - 1, 1)])
