"""The trunk as a torch function: native kernels where they can do it, PyTorch where not."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from stapes import native
from stapes.config import same_padding


def pooled_activations(
    x: Tensor,
    convs: Iterable[nn.Module],
    norms: Iterable[nn.Module],
    *,
    training: bool,
    scratch: native.Scratch,
) -> Tensor:
    """Blocks of Conv1d -> BatchNorm1d -> ReLU, then the mean over time: [B, T] -> [B, C].

    PyTorch takes over outside training, on other devices and types, where x needs a gradient, and
    (saying so once) where the kernels are not installed.

    Args:
        x: [B, T] normalised segments.
        convs: Conv1d without padding of their own; TensorFlow's "same" padding is used.
        norms: BatchNorm1d.
        training: use the batch's statistics, and update the running ones.
        scratch: memory for the training passes; keep it beside the modules.
    """
    pairs = list(zip(convs, norms, strict=True))
    if not (training and _native_can(x, pairs)):
        return _torch_pooled(x, pairs, training=training)
    return _train(x, pairs, scratch)


def _native_can(x: Tensor, pairs: list[tuple[Any, Any]]) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.requires_grad:
        return False
    if not all(c.weight.dtype == torch.float32 and c.stride[0] in native.STRIDES for c, _ in pairs):
        return False
    if not native.available():
        native.warn_missing("PyTorch")
    return native.available()


def _torch_pooled(x: Tensor, pairs: list[tuple[Any, Any]], *, training: bool) -> Tensor:
    x = x[:, None, :]  # [B, 1, T]
    for conv, norm in pairs:
        kernel_size, stride = conv.kernel_size[0], conv.stride[0]
        x = conv(F.pad(x, same_padding(x.shape[-1], kernel_size=kernel_size, stride=stride)))
        x = F.relu(
            F.batch_norm(
                x,
                norm.running_mean,
                norm.running_var,
                norm.weight,
                norm.bias,
                training=training,
                momentum=norm.momentum,
                eps=norm.eps,
            )
        )
        if training:
            norm.num_batches_tracked += 1
    return x.mean(dim=-1)


def _train(x: Tensor, pairs: list[tuple[Any, Any]], scratch: native.Scratch) -> Tensor:
    strides = tuple(conv.stride[0] for conv, _ in pairs)
    parameters = [
        *(conv.weight for conv, _ in pairs),
        *(norm.weight for _, norm in pairs),
        *(norm.bias for _, norm in pairs),
        *(conv.bias for conv, _ in pairs),
    ]
    settings = strides, pairs[0][1].eps, scratch
    pooled, means, variances = _Trunk.apply(x, settings, *parameters)  # type: ignore[no-untyped-call]
    _update_running(x.shape, pairs, means, variances)
    result: Tensor = pooled
    return result


def _update_running(
    shape: torch.Size, pairs: list[tuple[Any, Any]], means: Tensor, variances: Tensor
) -> None:
    """What BatchNorm1d does with a batch's mean and (unbiased) variance, in few torch calls."""
    sizes = [conv.out_channels for conv, _ in pairs]
    batch, length = shape
    with torch.no_grad():
        means = means + torch.cat([conv.bias for conv, _ in pairs])
        batch_statistics = zip(
            torch.split(means, sizes), torch.split(variances, sizes), strict=True
        )
        for (conv, norm), (mean, variance) in zip(pairs, batch_statistics, strict=True):
            length = -(-length // conv.stride[0])
            n = batch * length
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance.mul_(n / max(n - 1, 1)), norm.momentum)
            norm.num_batches_tracked.add_(1)


class _Trunk(torch.autograd.Function):
    """[B, T] and all parameters -> [B, C], the batch means and the batch variances."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, settings: tuple[tuple[int, ...], float, native.Scratch], *all_: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        strides, epsilon, scratch = settings
        n = len(strides)
        weights, gammas, betas = ([_array(t) for t in all_[i * n : (i + 1) * n]] for i in range(3))
        ctx.run = native.trunk_train_forward(
            _array(x),
            native.Blocks(weights, gammas, betas, strides),
            epsilon=epsilon,
            n_threads=_threads(),
            scratch=scratch,
        )
        statistics = np.concatenate(ctx.run.means), np.concatenate(ctx.run.variances)
        mean, variance = map(torch.from_numpy, statistics)
        ctx.mark_non_differentiable(mean, variance)
        return torch.from_numpy(ctx.run.pooled), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_pooled: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        blocks = native.trunk_train_backward(ctx.run, _array(d_pooled), n_threads=_threads())
        gradients = [*blocks.weights, *blocks.gammas, *blocks.betas]
        # Normalisation subtracts the batch mean, so a convolution's bias changes nothing.
        no_bias = torch.split(torch.zeros(sum(blocks.channels)), list(blocks.channels))
        return None, None, *map(torch.from_numpy, gradients), *no_bias


def _threads() -> int:
    return torch.get_num_threads()


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().numpy()
    return array
