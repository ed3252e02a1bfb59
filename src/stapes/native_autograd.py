"""The network in training: native kernels where they can do it, PyTorch where not."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from stapes import native
from stapes.config import same_padding
from stapes.engine import NORMALISATION_EPSILON


def training_logits(
    x: Tensor, flat: Tensor, blocks: native.Blocks, *, scratch: native.Scratch
) -> tuple[Tensor, Tensor]:
    """A training pass: convolution, normalisation by the batch, ReLU; mean over time; the head.

    The convolutions' biases are left out, for normalisation takes them away again: they have
    a gradient of zero. PyTorch takes over on other devices and types, where x needs a gradient,
    and (saying so once) where the kernels are not installed.

    Args:
        x: [B, T] normalised segments.
        flat: all parameters: the blocks', the convolutions' biases, the head's weights [N, C]
            and biases [N].
        blocks: how those of the blocks lie.
        scratch: memory for the passes; keep it beside the parameters.

    Returns:
        [B, N], and the mean and unbiased variance of every convolution's output
        [2, sum of channels], without a gradient.
    """
    if _native_can(x, flat, blocks):
        results: tuple[Tensor, Tensor] = _Training.apply(x, flat, blocks, scratch)  # type: ignore[no-untyped-call]
        return results
    statistics = flat.new_zeros(2, sum(blocks.channels))
    return torch_logits(x, flat, statistics, blocks, training=True), statistics


def training_pass(
    x: Tensor, flat: Tensor, blocks: native.Blocks, *, scratch: native.Scratch
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """The same with the gradient at hand, past PyTorch's graph where the kernels take over.

    Args:
        x: [B, T] normalised segments.
        flat: all parameters.
        blocks: how those of the blocks lie.
        scratch: memory for the passes.

    Returns:
        Logits [B, N] and statistics [2, sum of channels] without a gradient, and what makes of the
        logits' gradient that of the parameters, once.
    """
    if _native_can(x, flat, blocks):
        run = _NativePass.of(x, flat, blocks, scratch)
        return run.logits, run.statistics, run.gradient
    statistics = flat.new_zeros(2, sum(blocks.channels))
    logits = torch_logits(x, flat, statistics, blocks, training=True)
    return logits.detach(), statistics, lambda d: torch.autograd.grad(logits, [flat], [d])[0]


def torch_logits(
    x: Tensor, flat: Tensor, statistics: Tensor, blocks: native.Blocks, *, training: bool
) -> Tensor:
    """The same by PyTorch, in training or afterwards: [B, T] -> [B, N].

    Args:
        x: [B, T] normalised segments.
        flat: all parameters.
        statistics: mean and variance of every convolution's output [2, sum of channels]: written
            to in training, used for normalisation afterwards.
        blocks: how the blocks' parameters lie.
        training: normalise by the batch.
    """
    trunk, _, weight, bias = flat.split_with_sizes(_sizes(flat.numel(), blocks))
    pooled = _torch_pooled(x, trunk, statistics, blocks, training=training)
    return F.linear(pooled, weight.view(-1, pooled.shape[1]), bias)


def _sizes(n_parameters: int, blocks: native.Blocks) -> list[int]:
    """Of the four parts of the flat array."""
    n_blocks, n_biases = blocks.n_parameters, sum(blocks.channels)
    n_pooled = blocks.channels[-1]
    n_logits = (n_parameters - n_blocks - n_biases) // (n_pooled + 1)
    return [n_blocks, n_biases, n_logits * n_pooled, n_logits]


def _torch_pooled(
    x: Tensor, parameters: Tensor, statistics: Tensor, blocks: native.Blocks, *, training: bool
) -> Tensor:
    """[B, T] -> [B, C]."""
    n, shapes = len(blocks.channels), blocks.shapes
    flat = parameters.split_with_sizes([math.prod(shape) for shape in shapes])
    parts = [part.view(shape) for part, shape in zip(flat, shapes, strict=True)]
    means, variances = (row.split_with_sizes(blocks.channels) for row in statistics)
    y = x[:, None, :]  # [B, 1, T]
    for i, (weight, stride) in enumerate(zip(parts[:n], blocks.strides, strict=True)):
        padding = same_padding(y.shape[-1], kernel_size=weight.shape[-1], stride=stride)
        y = F.conv1d(F.pad(y, padding), weight, stride=stride)
        y = F.batch_norm(
            y,
            means[i],
            variances[i],
            parts[n + i],
            parts[2 * n + i],
            training=training,
            momentum=1.0,
            eps=NORMALISATION_EPSILON,
        )
        y = F.relu(y)
    return y.mean(dim=-1)


def _native_can(x: Tensor, parameters: Tensor, blocks: native.Blocks) -> bool:
    if x.device.type != "cpu" or x.requires_grad or {x.dtype, parameters.dtype} != {torch.float32}:
        return False
    if not set(blocks.strides) <= set(native.STRIDES):
        return False
    if not native.available():
        native.warn_missing("PyTorch")
    return native.available()


@dataclass(frozen=True, slots=True)
class _NativePass:
    """What the kernels found in one forward pass, and their backward pass."""

    logits: Tensor
    statistics: Tensor
    run: native.Forward
    weight: NDArray[np.float32]

    @classmethod
    def of(cls, x: Tensor, flat: Tensor, blocks: native.Blocks, scratch: native.Scratch) -> Self:
        trunk, _, weight, bias = _split(_array(flat), blocks)
        run = native.trunk_train_forward(
            _array(x),
            trunk,
            blocks,
            epsilon=NORMALISATION_EPSILON,
            n_threads=torch.get_num_threads(),
            scratch=scratch,
        )
        means, variances = run.statistics
        statistics = np.stack([means, variances * _unbiased(blocks, *x.shape)])
        weight = weight.reshape(len(bias), -1).copy()
        logits = torch.from_numpy(run.pooled @ weight.T + bias)
        return cls(logits, torch.from_numpy(statistics), run, weight)

    def gradient(self, d_logits: Tensor) -> Tensor:
        """Of all parameters, from that of the logits [B, N]; once."""
        d, run = _array(d_logits), self.run
        n_parameters = run.blocks.n_parameters + sum(run.blocks.channels)
        gradient = np.zeros(n_parameters + self.weight.size + d.shape[1], np.float32)
        d_trunk, _, d_weight, d_bias = _split(gradient, run.blocks)
        d_weight[:], d_bias[:] = (d.T @ run.pooled).ravel(), d.sum(axis=0)
        n_threads = torch.get_num_threads()
        native.trunk_train_backward(run, d @ self.weight, n_threads=n_threads, out=d_trunk)
        return torch.from_numpy(gradient)


class _Training(torch.autograd.Function):
    """[B, T] and all parameters -> [B, N] and the batch statistics [2, sum of channels]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, flat: Tensor, blocks: native.Blocks, scratch: native.Scratch
    ) -> tuple[Tensor, Tensor]:
        ctx.run = _NativePass.of(x, flat, blocks, scratch)
        ctx.mark_non_differentiable(ctx.run.statistics)
        return ctx.run.logits, ctx.run.statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logits: Tensor, d_statistics: Tensor) -> tuple[Tensor | None, ...]:
        return None, ctx.run.gradient(d_logits), None, None


def _split(flat: NDArray[np.float32], blocks: native.Blocks) -> list[NDArray[np.float32]]:
    """Views of the four parts."""
    ends = accumulate(_sizes(len(flat), blocks), initial=0)
    return [flat[begin:end] for begin, end in pairwise(ends)]


@lru_cache(maxsize=4)
def _unbiased(blocks: native.Blocks, batch: int, length: int) -> NDArray[np.float32]:
    """What makes of each channel's biased variance over n numbers the unbiased: n / (n - 1)."""
    numbers = []
    for stride in blocks.strides:
        length = -(-length // stride)
        numbers.append(batch * length)
    n = np.repeat(np.array(numbers, np.float32), blocks.channels)
    return (n / np.maximum(n - 1, 1)).astype(np.float32)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().numpy()
    return array
