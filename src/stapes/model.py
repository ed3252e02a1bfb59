"""The network, as it is trained; returns logits.

All that is learnt lies in one flat array, and all running statistics in another, so that a step
of the optimiser is one operation and not one for each of forty small tensors.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stapes.config import ModelConfig
from stapes.native import Blocks, Scratch
from stapes.native_autograd import library, torch_logits, training_logits, training_pass

MOMENTUM = 0.1
"""The share of a batch's statistics in the running ones; PyTorch's default."""


class Network(nn.Module):
    """Blocks of Conv1d -> batch normalisation -> ReLU, mean over time, one linear unit a logit.

    Attributes:
        flat: all parameters [n], one after another as :meth:`tensors` names them.
        statistics: running mean and variance of every convolution's output before its bias is
            added [2, sum of channels].
    """

    statistics: Tensor

    def __init__(
        self, config: ModelConfig, *, with_none: bool = False, low_cut: bool = False
    ) -> None:
        """Draw the initial weights from torch's current random state.

        Args:
            config: the network's numbers.
            with_none: one more unit beside the head, for what is none of the classes.
            low_cut: hear nothing at 0 Hz, see :meth:`used`.
        """
        super().__init__()
        self.config, self.low_cut = config, low_cut
        self.blocks = Blocks(config.channels, config.kernel_sizes, config.strides)
        self.scratch = Scratch()
        initial = _initial(config, with_none=with_none)
        self._shapes = {name: tensor.shape for name, tensor in initial.items()}
        self.flat = nn.Parameter(torch.cat([tensor.flatten() for tensor in initial.values()]))
        biases = torch.cat([initial[f"convs.{i}.bias"] for i in range(config.n_layers)])
        self.register_buffer("statistics", torch.stack([-biases, torch.ones_like(biases)]))

    def forward(self, segments: Tensor) -> Tensor:
        """Logits of normalised segments, that of "none" last: [B, T] -> [B, n_outputs (+ 1)]."""
        flat = self.used(self.flat)
        if not self.training:
            return torch_logits(segments, flat, self.statistics, self.blocks, training=False)
        logits, found = training_logits(segments, flat, self.blocks, scratch=self.scratch)
        self.statistics.lerp_(found, MOMENTUM)
        return logits

    def training_pass(self, segments: Tensor, flat: Any) -> tuple[Any, Any, Callable[[Any], Any]]:
        """Logits in training, statistics, and what makes of the logits' gradient that of ``flat``.

        All but the segments are as :func:`stapes.native_autograd.arithmetic` gives them. The
        running statistics are left to the caller.

        Args:
            segments: [B, T], normalised.
            flat: parameters, as :attr:`flat`.

        Returns:
            Logits [B, n_outputs (+ 1)], mean and variance of every convolution's output
            [2, sum of channels], and the function, to be called once.
        """
        used, scratch = self.used(flat), self.scratch
        logits, found, gradient = training_pass(segments, used, self.blocks, scratch=scratch)
        return logits, found, lambda d_logits: self.used(gradient(d_logits))

    def used(self, flat: Any) -> Any:
        """Parameters as they are used, a tensor or an array: [n] -> [n].

        With a low cut, each filter of the first block less the mean of its taps. Its gain rises
        with the frequency from none at 0 Hz, so rumble of wind and handling is hardly heard. The
        same map makes of the gradient of these that of ``flat``. A filter of one tap has no other
        gain, and stays.
        """
        shape = self.blocks.shapes[0]
        n, n_taps = math.prod(shape), shape[-1]
        if not self.low_cut or n_taps == 1:
            return flat
        taps = flat[:n].reshape(-1, n_taps)
        without_mean = (taps - taps.sum(1)[:, None] / n_taps).reshape(-1)
        return library(flat).concatenate([without_mean, flat[n:]])

    def tensors(self) -> dict[str, Tensor]:
        """The parameters in use and running statistics by the names of a saved model."""
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        parts = self.used(self.flat.detach()).split_with_sizes(sizes)
        flat = zip(self._shapes.items(), parts, strict=True)
        named = {name: part.view(shape) for (name, shape), part in flat}
        means, variances = (row.split_with_sizes(self.blocks.channels) for row in self.statistics)
        for i, (mean, variance) in enumerate(zip(means, variances, strict=True)):
            named[f"norms.{i}.running_mean"] = mean + named[f"convs.{i}.bias"]
            named[f"norms.{i}.running_var"] = variance
        return named


def _initial(config: ModelConfig, *, with_none: bool) -> dict[str, Tensor]:
    """PyTorch's initial weights, in the order of the flat array.

    The trunk's weights, gammas and betas come as the kernels want them, and units of the head
    side by side.
    """
    convs = [nn.Conv1d(n_in, n_out, k) for n_out, n_in, k in config.kernel_shapes]
    norms = [nn.BatchNorm1d(n_out) for n_out in config.channels]
    n_pooled = config.channels[-1]
    heads = {"head": nn.Linear(n_pooled, config.n_outputs)}
    if with_none:
        heads["none"] = nn.Linear(n_pooled, 1)
    return (
        _named("convs", convs, "weight")
        | _named("norms", norms, "weight")
        | _named("norms", norms, "bias")
        | _named("convs", convs, "bias")
        | {f"{name}.weight": head.weight.detach() for name, head in heads.items()}
        | {f"{name}.bias": head.bias.detach() for name, head in heads.items()}
    )


def _named(prefix: str, modules: Sequence[nn.Module], kind: str) -> dict[str, Tensor]:
    return {f"{prefix}.{i}.{kind}": m.get_parameter(kind).detach() for i, m in enumerate(modules)}
