"""The network, as it is trained; returns logits.

All that is learnt lies in one flat array, and all running statistics in another, so that a step
of the optimiser is one operation and not one for each of forty small tensors.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stapes.config import ModelConfig
from stapes.native import Blocks, Scratch
from stapes.native_autograd import pooled_activations, torch_pooled

MOMENTUM = 0.1
"""The share of a batch's statistics in the running ones; PyTorch's default."""


class Network(nn.Module):
    """Blocks of Conv1d -> batch normalisation -> ReLU, mean over time, one linear unit a logit.

    Attributes:
        flat: all parameters [n], one after another as :meth:`tensors` names them.
        statistics: running mean and variance of every convolution's output
            [2, n_layers * n_filters].
    """

    statistics: Tensor

    def __init__(self, config: ModelConfig, *, with_none: bool = False) -> None:
        """Draw the initial weights from torch's current random state.

        Args:
            config: the network's numbers.
            with_none: one more unit beside the head, for what is none of the classes.
        """
        super().__init__()
        self.config = config
        n, channels = config.n_layers, config.n_filters
        self.blocks = Blocks((channels,) * n, (config.kernel_size,) * n, (config.stride,) * n)
        self.scratch = Scratch()
        initial = _initial(config, with_none=with_none)
        self._shapes = {name: tensor.shape for name, tensor in initial.items()}
        self.flat = nn.Parameter(torch.cat([tensor.flatten() for tensor in initial.values()]))
        sums = torch.zeros(n * channels), torch.ones(n * channels)
        self.register_buffer("statistics", torch.stack(sums))

    def forward(self, segments: Tensor) -> Tensor:
        """Logits of normalised segments, that of "none" last: [B, T] -> [B, n_outputs (+ 1)]."""
        n_biases, n_pooled = sum(self.blocks.channels), self.config.n_filters
        n_head = self.flat.numel() - self.blocks.n_parameters - n_biases
        n_logits = n_head // (n_pooled + 1)
        sizes = [self.blocks.n_parameters, n_biases, n_logits * n_pooled, n_logits]
        trunk, biases, weight, bias = self.flat.split(sizes)
        offsets = torch.stack([biases.detach(), torch.zeros_like(biases)])
        if self.training:
            pooled, found = pooled_activations(segments, trunk, self.blocks, scratch=self.scratch)
            self.statistics.lerp_(found + offsets, MOMENTUM)
        else:
            without_bias = self.statistics - offsets
            pooled = torch_pooled(segments, trunk, without_bias, self.blocks, training=False)
        return F.linear(pooled, weight.view(n_logits, n_pooled), bias)

    def tensors(self) -> dict[str, Tensor]:
        """The parameters and running statistics by the names of a saved model, as views."""
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        flat = zip(self._shapes.items(), self.flat.detach().split(sizes), strict=True)
        named = {name: part.view(shape) for (name, shape), part in flat}
        for kind, row in zip(("running_mean", "running_var"), self.statistics, strict=True):
            parts = row.split(self.blocks.channels)
            named |= {f"norms.{i}.{kind}": part for i, part in enumerate(parts)}
        return named


def _initial(config: ModelConfig, *, with_none: bool) -> dict[str, Tensor]:
    """PyTorch's initial weights, in the order of the flat array.

    The trunk's weights, gammas and betas come as the kernels want them, and units of the head
    side by side.
    """
    sizes = [1] + [config.n_filters] * config.n_layers
    convs = [
        nn.Conv1d(n_in, n_out, config.kernel_size, config.stride) for n_in, n_out in pairwise(sizes)
    ]
    norms = [nn.BatchNorm1d(n_out) for n_out in sizes[1:]]
    heads = {"head": nn.Linear(config.n_filters, config.n_outputs)}
    if with_none:
        heads["none"] = nn.Linear(config.n_filters, 1)
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
