"""The network in training by PyTorch: on a GPU, where the kernels cannot run, and in its graph."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from stapes import native, native_pass
from stapes.config import same_padding
from stapes.engine import NORMALISATION_EPSILON
from stapes.native_pass import NativePass
from stapes.threads import torch_obeying


def training_logits(
    x: Tensor, flat: Tensor, blocks: native.Blocks, *, scratch: native.Scratch
) -> tuple[Tensor, Tensor]:
    """A training pass in PyTorch's graph, by the kernels where they can run.

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
    plain = x.device.type == "cpu" and not x.requires_grad and flat.dtype == torch.float32
    if plain and native_pass.can_run(x.numpy(), blocks):
        results: tuple[Tensor, Tensor] = _Training.apply(x, flat, blocks, scratch)  # type: ignore[no-untyped-call]
        return results
    statistics = flat.new_zeros(2, sum(blocks.channels))
    return torch_logits(x, flat, statistics, blocks), statistics


def training_pass(
    x: Any, flat: Any, blocks: native.Blocks
) -> tuple[Any, Any, Callable[[Any], Any]]:
    """The same with the gradient at hand, of NumPy's arrays or PyTorch's, by PyTorch.

    Args:
        x: [B, T] normalised segments.
        flat: all parameters.
        blocks: how those of the blocks lie.

    Returns:
        Logits [B, N] and statistics [2, sum of channels] without a gradient, and what makes of the
        logits' gradient that of the parameters, once.
    """

    def alike(found: Tensor) -> Any:
        return found.detach().numpy() if isinstance(flat, np.ndarray) else found.detach()

    leaf = torch.as_tensor(flat).detach().requires_grad_()
    statistics = leaf.new_zeros(2, sum(blocks.channels))
    with torch_obeying():
        logits = torch_logits(torch.as_tensor(x), leaf, statistics, blocks)

    def gradient(d_logits: Any) -> Any:
        with torch_obeying():
            return alike(torch.autograd.grad(logits, [leaf], [torch.as_tensor(d_logits)])[0])

    return alike(logits), alike(statistics), gradient


def torch_logits(x: Tensor, flat: Tensor, statistics: Tensor, blocks: native.Blocks) -> Tensor:
    """The same by PyTorch: [B, T] -> [B, N].

    Args:
        x: [B, T] normalised segments.
        flat: all parameters.
        statistics: where mean and variance of every convolution's output are written to
            [2, sum of channels].
        blocks: how the blocks' parameters lie.
    """
    trunk, _, weight, bias = flat.split_with_sizes(native_pass.sizes(flat.numel(), blocks))
    pooled = _torch_pooled(x, trunk, statistics, blocks)
    return F.linear(pooled, weight.view(-1, pooled.shape[1]), bias)


def _torch_pooled(
    x: Tensor, parameters: Tensor, statistics: Tensor, blocks: native.Blocks
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
            training=True,
            momentum=1.0,
            eps=NORMALISATION_EPSILON,
        )
        y = F.relu(y)
    return y.mean(dim=-1)


class _Training(torch.autograd.Function):
    """[B, T] and all parameters -> [B, N] and the batch statistics [2, sum of channels]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, flat: Tensor, blocks: native.Blocks, scratch: native.Scratch
    ) -> tuple[Tensor, Tensor]:
        ctx.run = NativePass.of(x.numpy(), flat.detach().numpy(), blocks, scratch)
        logits, statistics = map(torch.from_numpy, (ctx.run.logits, ctx.run.statistics))
        ctx.mark_non_differentiable(statistics)
        return logits, statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logits: Tensor, d_statistics: Tensor) -> tuple[Tensor | None, ...]:
        return None, torch.from_numpy(ctx.run.gradient(d_logits.numpy())), None, None
