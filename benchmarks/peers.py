"""The same network in other frameworks, with the same weights."""

import math
import os
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import presenting
from stapes.config import ModelConfig, same_padding
from stapes.engine import NORMALISATION_EPSILON
from stapes.levels import LEVEL_STEP_DB, OFFSET_STEP
from stapes.segments import SILENCE_RMS

LANES = 16
"""Filters are padded to this number where it is quicker: a multiple of what a vector holds."""

COMPILED_FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "channels-last, 16 filters": {"n_filters": LANES, "channels_last": True},
}
"""Forms of :class:`TorchNetwork` that are tried with torch.compile."""

STEPS_A_NEPER = 10 / math.log(10) / LEVEL_STEP_DB
"""Steps of the level, a natural logarithm of the power."""

Arrays = Mapping[str, NDArray[np.float32]]


class TorchNetwork(nn.Module):
    """The network as one writes it in PyTorch, or channels-last by way of two dimensions."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        n_filters: int | None = None,
        channels_last: bool = False,
        normalise: bool = False,
    ) -> None:
        """Draw the weights from torch's current random state.

        Args:
            config: the network's numbers.
            n_filters: of every block, if not as in the numbers.
            channels_last: keep the channels of one time side by side.
            normalise: bring each segment to its level first, in the steps of ``stapes.levels``.
        """
        super().__init__()
        n = n_filters or config.n_filters
        sizes = [1] + [n] * config.n_layers
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if channels_last else (nn.Conv1d, nn.BatchNorm1d)
        kernel: Any = (1, config.kernel_size) if channels_last else config.kernel_size
        stride: Any = (1, config.stride) if channels_last else config.stride
        self.convs = nn.ModuleList(conv(a, b, kernel, stride) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(norm(b, eps=NORMALISATION_EPSILON) for b in sizes[1:])
        self.head = nn.Linear(n, config.n_outputs)
        self.channels_last, self.normalise = channels_last, normalise
        self.paddings = [
            same_padding(length, kernel_size=config.kernel_size, stride=config.stride)
            for length in config.layer_lengths[:-1]
        ]
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Logits: [B, T] -> [B, n_outputs]."""
        if self.normalise:
            mean = x.mean(dim=1, keepdim=True)
            power = (x - mean).square().mean(dim=1, keepdim=True).clamp(min=SILENCE_RMS**2)
            level = torch.exp(torch.round(torch.log(power) * STEPS_A_NEPER) / (2 * STEPS_A_NEPER))
            step = OFFSET_STEP * level
            x = (x - torch.round(mean / step) * step) / level
        x = x[:, None, None] if self.channels_last else x[:, None]  # [B, 1, (1,) T]
        for conv, norm, padding in zip(self.convs, self.norms, self.paddings, strict=True):
            x = F.relu(norm(conv(F.pad(x, padding))))
        logits: Tensor = self.head(x.mean(dim=-1).flatten(1))
        return logits


def random_torch(config: ModelConfig) -> TorchNetwork:
    """A network with random weights, and running statistics that belong to them."""
    torch.manual_seed(0)
    network = TorchNetwork(config)
    for norm in network.norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = None  # the mean over the batches
    nn.init.normal_(network.head.weight)
    network.train()
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(16, config.segment_length))
    return network.eval()


def arrays(network: TorchNetwork) -> dict[str, NDArray[np.float32]]:
    """Weights and running statistics by the names that stapes gives them, too."""
    state = network.state_dict().items()
    return {name: value.numpy().copy() for name, value in state if value.is_floating_point()}


def like(network: TorchNetwork, config: ModelConfig, **options: Any) -> TorchNetwork:
    """The same function in another form; further filters are zero.

    Args:
        network: one in one dimension.
        config: the network's numbers.
        options: of :class:`TorchNetwork`.
    """
    other = TorchNetwork(config, **options).eval()
    weights = network.state_dict()
    with torch.no_grad():
        for name, value in other.state_dict().items():
            source = weights[name]
            if value.ndim == 4:
                source = source[:, :, None]
            value.zero_()
            value[tuple(slice(n) for n in source.shape)] = source
    return other


def folded(network: TorchNetwork) -> TorchNetwork:
    """Normalisation folded into the convolutions, in place."""
    pairs = zip(network.convs, network.norms, strict=True)
    fused = [torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm) for conv, norm in pairs]
    network.convs = nn.ModuleList(fused)
    network.norms = nn.ModuleList(nn.Identity() for _ in fused)
    return network


def write_onnx(network: TorchNetwork, config: ModelConfig, path: Path) -> None:
    """Export a network for any number of segments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no more packages is the old one
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2, config.segment_length),),
            str(path),
            dynamo=False,
            input_names=["segments"],
            output_names=["logits"],
            dynamic_axes={"segments": {0: "n"}, "logits": {0: "n"}},
        )


def works(call: Callable[[], Any], *, name: str) -> bool:
    """Whether a first call succeeds; says why not. For what needs compilers."""
    try:
        call()
    except Exception as error:  # whatever they raise
        presenting.say(f"{name}: left out, it does not work here ({error!s:.200})")
        return False
    return True


def tensorflow(threads: int) -> Any:
    """TensorFlow, quiet, on so many threads; to be called once, before it does anything."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
    return tensorflow


def keras_network(config: ModelConfig, weights: Arrays | None = None) -> Any:
    """The network as one writes it in Keras, [B, T] -> [B, n_outputs]; after :func:`tensorflow`."""
    from keras import Sequential, layers

    blocks = [
        (
            layers.Conv1D(
                config.n_filters, config.kernel_size, strides=config.stride, padding="same"
            ),
            layers.BatchNormalization(epsilon=NORMALISATION_EPSILON),
        )
        for _ in range(config.n_layers)
    ]
    inner = [layer for conv, norm in blocks for layer in (conv, norm, layers.ReLU())]
    head = layers.Dense(config.n_outputs)
    length = config.segment_length
    ends = [layers.Input((length,)), layers.Reshape((length, 1))]
    model = Sequential([*ends, *inner, layers.GlobalAveragePooling1D(), head])
    if weights is not None:
        for i, (conv, norm) in enumerate(blocks):
            kernel = weights[f"convs.{i}.weight"].transpose(2, 1, 0)
            conv.set_weights([kernel, weights[f"convs.{i}.bias"]])
            names = ("weight", "bias", "running_mean", "running_var")
            norm.set_weights([weights[f"norms.{i}.{name}"] for name in names])
        head.set_weights([weights["head.weight"].T, weights["head.bias"]])
    return model
