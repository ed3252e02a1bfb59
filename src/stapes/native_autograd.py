"""The network in training: native kernels where they can do it, PyTorch where not."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from stapes import native
from stapes.config import same_padding
from stapes.engine import NORMALISATION_EPSILON
from stapes.native import Array


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
    x: Tensor, flat: Any, blocks: native.Blocks, *, scratch: native.Scratch
) -> tuple[Any, Any, Callable[[Any], Any]]:
    """The same with the gradient at hand, past PyTorch's graph where the kernels take over.

    Args:
        x: [B, T] normalised segments.
        flat: all parameters, as :func:`arithmetic` gives them; so are the results.
        blocks: how those of the blocks lie.
        scratch: memory for the passes.

    Returns:
        Logits [B, N] and statistics [2, sum of channels] without a gradient, and what makes of the
        logits' gradient that of the parameters, once.
    """
    if _native_can(x, flat, blocks):
        run = _NativePass.of(arithmetic(x), flat, blocks, scratch)
        return run.logits, run.statistics, run.gradient
    leaf = torch.as_tensor(flat).detach().requires_grad_()
    statistics = leaf.new_zeros(2, sum(blocks.channels))
    logits = torch_logits(x, leaf, statistics, blocks, training=True)

    def gradient(d_logits: Any) -> Any:
        return arithmetic(torch.autograd.grad(logits, [leaf], [torch.as_tensor(d_logits)])[0])

    return arithmetic(logits), arithmetic(statistics), gradient


def arithmetic(tensor: Tensor) -> Any:
    """The same memory for arithmetic: NumPy's on the processor, where each call costs less."""
    return tensor.detach() if tensor.is_cuda else tensor.detach().numpy()


def library(array: Any) -> Any:
    """NumPy or PyTorch: functions of the same names for either's arrays."""
    return np if isinstance(array, np.ndarray) else torch


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


def _native_can(x: Tensor, parameters: Any, blocks: native.Blocks) -> bool:
    if x.device.type != "cpu" or x.requires_grad or x.dtype != torch.float32:
        return False
    if parameters.itemsize != x.itemsize:  # NumPy's and PyTorch's types do not compare
        return False
    if not set(blocks.strides) <= set(native.STRIDES):
        return False
    if not native.available():
        native.warn_missing("PyTorch")
    return native.available()


@dataclass(frozen=True, slots=True)
class _NativePass:
    """What the kernels found in one forward pass, and their backward pass."""

    logits: Array
    statistics: Array
    run: native.Forward
    weight: Array

    @classmethod
    def of(cls, x: Array, flat: Array, blocks: native.Blocks, scratch: native.Scratch) -> Self:
        trunk, _, weight, bias = _split(flat, blocks)
        run = native.trunk_train_forward(
            x,
            trunk,
            blocks,
            epsilon=NORMALISATION_EPSILON,
            n_threads=torch.get_num_threads(),
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
        d_trunk, _, d_weight, d_bias = _split(gradient, run.blocks)
        d_weight[:], d_bias[:] = (d.T @ run.pooled).ravel(), d.sum(axis=0)
        n_threads = torch.get_num_threads()
        native.trunk_train_backward(run, d @ self.weight, n_threads=n_threads, out=d_trunk)
        return gradient


class _Training(torch.autograd.Function):
    """[B, T] and all parameters -> [B, N] and the batch statistics [2, sum of channels]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, flat: Tensor, blocks: native.Blocks, scratch: native.Scratch
    ) -> tuple[Tensor, Tensor]:
        ctx.run = _NativePass.of(arithmetic(x), arithmetic(flat), blocks, scratch)
        logits, statistics = map(torch.from_numpy, (ctx.run.logits, ctx.run.statistics))
        ctx.mark_non_differentiable(statistics)
        return logits, statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logits: Tensor, d_statistics: Tensor) -> tuple[Tensor | None, ...]:
        return None, torch.from_numpy(ctx.run.gradient(arithmetic(d_logits))), None, None


def _split(flat: Array, blocks: native.Blocks) -> list[Array]:
    """Views of the four parts."""
    ends = accumulate(_sizes(len(flat), blocks), initial=0)
    return [flat[begin:end] for begin, end in pairwise(ends)]


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
