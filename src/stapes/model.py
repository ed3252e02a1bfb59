"""The network, as it is trained; returns logits.

All that is learnt lies in one flat array, and all running statistics in another, so that a step
of the optimiser is one operation and not one for each of forty small arrays.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from stapes.arrays import library, put
from stapes.config import ModelConfig
from stapes.native import Array, Blocks, Scratch
from stapes.native_pass import NativePass, can_run, pieces

MOMENTUM = 0.1
"""The share of a batch's statistics in the running ones; PyTorch's default."""


class Network:
    """Blocks of convolution -> batch normalisation -> ReLU, mean over time, a linear unit a logit.

    Attributes:
        flat: all parameters [n], one after another as :meth:`tensors` names them.
        statistics: running mean and variance of every convolution's output before its bias is
            added [2, sum of channels].
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        seed: int = 0,
        with_none: bool = False,
        low_cut: bool = False,
    ) -> None:
        """Draw the initial weights.

        Args:
            config: the network's numbers.
            seed: of the weights.
            with_none: one more unit beside the head, for what is none of the classes.
            low_cut: hear nothing at 0 Hz, see :meth:`used`.
        """
        self.config, self.low_cut = config, low_cut
        self.blocks = Blocks(config.channels, config.kernel_sizes, config.strides)
        self.scratch = Scratch()
        initial = _initial(config, with_none=with_none, seed=seed)
        self._shapes = {name: array.shape for name, array in initial.items()}
        self.flat: Any = np.concatenate([array.ravel() for array in initial.values()])
        biases = np.concatenate([initial[f"convs.{i}.bias"] for i in range(config.n_layers)])
        self.statistics: Any = np.stack([-biases, np.ones_like(biases)])

    def to(self, device: str) -> Self:
        """Learn on another device."""
        self.flat, self.statistics = put(self.flat, device), put(self.statistics, device)
        return self

    def training_pass(self, segments: Any) -> tuple[Any, Any, Callable[[Any], Any]]:
        """Logits in training, statistics, and what makes of the logits' gradient that of ``flat``.

        By the kernels, or by PyTorch on a GPU and where they cannot run. The running statistics
        are left to the caller.

        Args:
            segments: [B, T], normalised.

        Returns:
            Logits [B, n_outputs (+ 1)], that of "none" last, mean and unbiased variance of every
            convolution's output [2, sum of channels], and the function, to be called once.
        """
        gradient: Callable[[Any], Any]
        used = self.used(self.flat)
        if can_run(segments, self.blocks):
            run = NativePass.of(segments, used, self.blocks, self.scratch)
            logits, found, gradient = run.logits, run.statistics, run.gradient
        else:
            from stapes.native_autograd import training_pass

            logits, found, gradient = training_pass(segments, used, self.blocks)
        return logits, found, lambda d_logits: self.used(gradient(d_logits))

    def used(self, flat: Any) -> Any:
        """Parameters as they are used: [n] -> [n].

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

    def tensors(self) -> dict[str, Any]:
        """The parameters in use and running statistics by the names of a saved model."""
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        parts = pieces(self.used(self.flat), sizes)
        flat = zip(self._shapes.items(), parts, strict=True)
        named = {name: part.reshape(shape) for (name, shape), part in flat}
        means, variances = (pieces(row, self.blocks.channels) for row in self.statistics)
        for i, (mean, variance) in enumerate(zip(means, variances, strict=True)):
            named[f"norms.{i}.running_mean"] = mean + named[f"convs.{i}.bias"]
            named[f"norms.{i}.running_var"] = variance
        return named


def _initial(config: ModelConfig, *, with_none: bool, seed: int) -> dict[str, Array]:
    """Initial weights, in the order of the flat array: those that PyTorch's modules would draw.

    Uniform within 1 / sqrt(inputs of a unit), 24 bits of each number of a Mersenne Twister. The
    trunk's weights, gammas and betas come as the kernels want them, and units of the head side by
    side.
    """
    bits = np.random.RandomState(seed)

    def drawn(shape: tuple[int, ...], n_inputs: int) -> Array:
        shares = bits.randint(2**32, size=shape, dtype=np.uint32) % 2**24 / 2**24
        bound = float(np.float32(1 / math.sqrt(n_inputs)))
        found: Array = (shares * 2 * bound - bound).astype(np.float32)
        return found

    convs = {}
    for i, (n_out, n_in, k) in enumerate(config.kernel_shapes):
        convs[f"convs.{i}.weight"] = drawn((n_out, n_in, k), n_in * k)
        convs[f"convs.{i}.bias"] = drawn((n_out,), n_in * k)
    n_pooled, heads = config.channels[-1], {}
    for name, n in {"head": config.n_outputs, **({"none": 1} if with_none else {})}.items():
        heads[f"{name}.weight"] = drawn((n, n_pooled), n_pooled)
        heads[f"{name}.bias"] = drawn((n,), n_pooled)
    channels = list(enumerate(config.channels))
    return (
        _of_kind(convs, "weight")
        | {f"norms.{i}.weight": np.ones(c, np.float32) for i, c in channels}
        | {f"norms.{i}.bias": np.zeros(c, np.float32) for i, c in channels}
        | _of_kind(convs, "bias")
        | _of_kind(heads, "weight")
        | _of_kind(heads, "bias")
    )


def _of_kind(named: Mapping[str, Array], kind: str) -> dict[str, Array]:
    return {name: array for name, array in named.items() if name.endswith(kind)}
