"""The trunk as a torch function: native kernels where they can do it, PyTorch where not."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from stapes import native
from stapes.config import same_padding
from stapes.engine import NORMALISATION_EPSILON


def pooled_activations(
    x: Tensor, parameters: Tensor, blocks: native.Blocks, *, scratch: native.Scratch
) -> tuple[Tensor, Tensor]:
    """A training pass: convolution, normalisation by the batch, ReLU; then the mean over time.

    The convolutions have no bias, for normalisation would take it away again. PyTorch takes over
    on other devices and types, where x needs a gradient, and (saying so once) where the kernels
    are not installed.

    Args:
        x: [B, T] normalised segments.
        parameters: of all blocks, flat.
        blocks: how these lie.
        scratch: memory for the passes; keep it beside the parameters.

    Returns:
        [B, C], and the mean and unbiased variance of every convolution's output
        [2, sum of channels], without a gradient.
    """
    if _native_can(x, parameters, blocks):
        results: tuple[Tensor, Tensor] = _Trunk.apply(x, parameters, blocks, scratch)  # type: ignore[no-untyped-call]
        return results
    statistics = parameters.new_zeros(2, sum(blocks.channels))
    return torch_pooled(x, parameters, statistics, blocks, training=True), statistics


def torch_pooled(
    x: Tensor, parameters: Tensor, statistics: Tensor, blocks: native.Blocks, *, training: bool
) -> Tensor:
    """The same by PyTorch, in training or afterwards: [B, T] -> [B, C].

    Args:
        x: [B, T] normalised segments.
        parameters: of all blocks, flat.
        statistics: mean and variance of every convolution's output [2, sum of channels]: written
            to in training, used for normalisation afterwards.
        blocks: how the parameters lie.
        training: normalise by the batch.
    """
    n, shapes = len(blocks.channels), blocks.shapes
    flat = parameters.split([math.prod(shape) for shape in shapes])
    parts = [part.view(shape) for part, shape in zip(flat, shapes, strict=True)]
    means, variances = (row.split(blocks.channels) for row in statistics)
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


class _Trunk(torch.autograd.Function):
    """[B, T] and all parameters -> [B, C] and the batch statistics [2, sum of channels]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, parameters: Tensor, blocks: native.Blocks, scratch: native.Scratch
    ) -> tuple[Tensor, Tensor]:
        ctx.run = native.trunk_train_forward(
            _array(x),
            _array(parameters),
            blocks,
            epsilon=NORMALISATION_EPSILON,
            n_threads=torch.get_num_threads(),
            scratch=scratch,
        )
        means, variances = ctx.run.statistics
        statistics = torch.from_numpy(np.stack([means, variances * _unbiased(blocks, x.shape)]))
        ctx.mark_non_differentiable(statistics)
        return torch.from_numpy(ctx.run.pooled), statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_pooled: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradient = native.trunk_train_backward(
            ctx.run, _array(d_pooled), n_threads=torch.get_num_threads()
        )
        return None, torch.from_numpy(gradient), None, None


def _unbiased(blocks: native.Blocks, shape: torch.Size) -> NDArray[np.float32]:
    """What makes of each channel's biased variance over n numbers the unbiased: n / (n - 1)."""
    batch, length = shape
    numbers = []
    for stride in blocks.strides:
        length = -(-length // stride)
        numbers.append(batch * length)
    n = np.repeat(np.array(numbers, np.float32), blocks.channels)
    factors: NDArray[np.float32] = n / np.maximum(n - 1, 1)
    return factors


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().numpy()
    return array
