"""One gradient step; on a GPU captured once, and then replayed as a whole."""

import copy
import math
from typing import Any

import torch
from torch import Tensor

from stapes.batches import Batch
from stapes.config import ModelConfig
from stapes.model import MOMENTUM, Network
from stapes.native_autograd import arithmetic, library

WARM_UP = 3
"""Steps on a GPU before one is captured: libraries choose their kernels in the first ones."""


BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of AdamW; the values of its paper."""


class Stepper:
    """The network, the average of its weights, and what moves both: AdamW on one flat array.

    Attributes:
        network: what learns.
        average: follows it.
    """

    def __init__(self, network: Network, *, weight_decay: float) -> None:
        """Start the average where the network starts.

        Args:
            network: what learns, on its device.
            weight_decay: of AdamW, decoupled.
        """
        self.network, self.average = network.train(), copy.deepcopy(network)
        self._weight_decay = weight_decay
        self._moments = torch.zeros(2, *network.flat.shape, device=network.flat.device)
        numbers = torch.zeros(3, device=network.flat.device)
        self._numbers = arithmetic(numbers)
        learning = network.flat, *self._moments, *numbers
        following = self.average.flat, self.average.statistics, network.statistics
        self._arrays = [arithmetic(tensor) for tensor in (*learning, *following)]
        self._n_warm = 0
        self._aside: torch.cuda.Stream | None = None
        self._replayed: tuple[torch.cuda.CUDAGraph, Batch, Tensor] | None = None

    def __call__(
        self, batch: Batch, *, number: int, learning_rate: float, pace: float
    ) -> tuple[float, float]:
        """Learn from one batch.

        Args:
            batch: on the network's device.
            number: of the step, from 1.
            learning_rate: of this step.
            pace: how far the average moves towards the new weights, 0 to 1.

        Returns:
            The loss and the share of segments that are most of all what they were called.
        """
        kept = 1 - learning_rate * self._weight_decay
        size = learning_rate * math.sqrt(1 - BETAS[1] ** number) / (1 - BETAS[0] ** number)
        self._numbers[:] = library(self._numbers).asarray([kept, size, pace])
        on_gpu = batch.segments.is_cuda
        told = self._step_on_gpu(batch).cpu().numpy() if on_gpu else self._step(batch)
        log_shares, targets = told
        right = log_shares.argmax(axis=1) == targets.argmax(axis=1)
        return -float((targets * log_shares).sum()) / len(right), float(right.mean())

    def tensors(self) -> dict[str, Tensor]:
        """All that a step changes, to be saved and restored."""
        networks = {"network": self.network, "average": self.average}
        named = {f"{k}.flat": network.flat.detach() for k, network in networks.items()}
        named |= {f"{k}.statistics": network.statistics for k, network in networks.items()}
        return named | {"moments": self._moments}

    def _step(self, batch: Batch) -> Any:
        """All that a step does.

        Returns:
            Logarithms of the classes' shares, and the targets: [2, B, n_classes (+ 1)].
        """
        flat, *_, statistics = self._arrays
        logits, found, gradient = self.network.training_pass(batch.segments, flat)
        statistics += MOMENTUM * (found - statistics)
        targets = arithmetic(batch.targets)
        log_shares = log_probabilities(logits, self.network.config)
        d_logits = (library(logits).exp(log_shares) - targets) / len(logits)  # targets sum to 1
        self._descend(gradient(d_logits[:, -logits.shape[1] :]))
        return library(logits).stack([log_shares, targets])

    def _descend(self, gradient: Any) -> None:
        """AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101), then the average.

        Epsilon stands under the root, where it only keeps zero from dividing zero.
        """
        flat, mean, square, kept, size, pace, average, averaged, statistics = self._arrays
        mean += (1 - BETAS[0]) * (gradient - mean)
        square += (1 - BETAS[1]) * (gradient * gradient - square)
        flat *= kept
        flat -= size * mean / (square + EPSILON**2) ** 0.5
        average += pace * (flat - average)
        averaged += pace * (statistics - averaged)

    def _step_on_gpu(self, batch: Batch) -> Any:
        if self._n_warm < WARM_UP:
            self._n_warm += 1
            return self._step_aside(batch)
        if self._replayed is None:
            self._replayed = self._capture(batch)
        graph, given, told = self._replayed
        given.segments.copy_(batch.segments)
        given.targets.copy_(batch.targets)
        graph.replay()
        return told

    def _step_aside(self, batch: Batch) -> Any:
        """A step on a stream of its own, as capturing wants those before it."""
        self._aside = self._aside or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        here = torch.cuda.current_stream()
        self._aside.wait_stream(here)
        with torch.cuda.stream(self._aside):
            told = self._step(batch)
        here.wait_stream(self._aside)
        return told

    def _capture(self, batch: Batch) -> tuple[torch.cuda.CUDAGraph, Batch, Tensor]:
        """The graph of a step, which is not taken yet, the batch it reads and what it tells."""
        given = Batch(batch.segments.clone(), batch.targets.clone(), batch.clips)
        torch.cuda.empty_cache()  # what the steps aside kept
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            told = self._step(given)
        return graph, given, told


def log_probabilities(logits: Any, config: ModelConfig) -> Any:
    """[B, n_outputs (+ 1)] -> [B, n_classes (+ 1)]; one logit stands for the second class."""
    functions = library(logits)
    if config.n_outputs == 1:
        logits = functions.concatenate([functions.zeros_like(logits[:, :1]), logits], 1)
    logits = logits - functions.amax(logits, 1)[:, None]
    return logits - functions.log(functions.exp(logits).sum(1))[:, None]
