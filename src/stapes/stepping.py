"""One gradient step; on a GPU captured once, and then replayed as a whole."""

import copy
import math
from typing import Any

import numpy as np

from stapes.arrays import fetch, library, put
from stapes.batches import Batch
from stapes.config import ModelConfig
from stapes.model import MOMENTUM, Network

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of AdamW; the values of its paper."""


class Stepper:
    """The network, the average of its weights, and what moves both: AdamW on one flat array.

    Attributes:
        network: what learns.
        average: follows it.
    """

    def __init__(self, network: Network, *, weight_decay: float, device: str = "cpu") -> None:
        """Start the average where the network starts.

        Args:
            network: what learns.
            weight_decay: of AdamW, decoupled.
            device: where it learns.
        """
        network = network.to(device)
        self.network, self.average = network, copy.deepcopy(network)
        self._weight_decay = weight_decay
        self._moments = put(np.zeros((2, len(network.flat)), np.float32), device)
        self._numbers = put(np.zeros((3, 1), np.float32), device)
        self._run = self._step
        if device != "cpu":
            from stapes.captured import Captured

            self._run = Captured(self._step)

    def __call__(
        self, batch: Batch, *, number: int, learning_rate: float, pace: float
    ) -> tuple[float, float]:
        """Learn from one batch.

        Args:
            batch: on the device.
            number: of the step, from 1.
            learning_rate: of this step.
            pace: how far the average moves towards the new weights, 0 to 1.

        Returns:
            The loss and the share of segments that are most of all what they were called.
        """
        kept = 1 - learning_rate * self._weight_decay
        size = learning_rate * math.sqrt(1 - BETAS[1] ** number) / (1 - BETAS[0] ** number)
        self._numbers[:, 0] = library(self._numbers).asarray([kept, size, pace])
        log_shares, targets = fetch(self._run(batch))
        right = log_shares.argmax(axis=1) == targets.argmax(axis=1)
        return -float((targets * log_shares).sum()) / len(right), float(right.mean())

    def tensors(self) -> dict[str, Any]:
        """All that a step changes, to be saved and restored."""
        networks = {"network": self.network, "average": self.average}
        named = {f"{k}.flat": network.flat for k, network in networks.items()}
        named |= {f"{k}.statistics": network.statistics for k, network in networks.items()}
        return named | {"moments": self._moments}

    def _step(self, batch: Batch) -> Any:
        """All that a step does.

        Returns:
            Logarithms of the classes' shares, and the targets: [2, B, n_classes (+ 1)].
        """
        network, targets = self.network, batch.targets
        logits, found, gradient = network.training_pass(batch.segments)
        network.statistics += MOMENTUM * (found - network.statistics)
        log_shares = log_probabilities(logits, network.config)
        d_logits = (library(logits).exp(log_shares) - targets) / len(logits)  # targets sum to 1
        self._descend(gradient(d_logits[:, -logits.shape[1] :]))
        return library(logits).stack([log_shares, targets])

    def _descend(self, gradient: Any) -> None:
        """AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101), then the average.

        Epsilon stands under the root, where it only keeps zero from dividing zero.
        """
        flat, average, (kept, size, pace) = self.network.flat, self.average, self._numbers
        mean, square = self._moments
        mean += (1 - BETAS[0]) * (gradient - mean)
        square += (1 - BETAS[1]) * (gradient * gradient - square)
        flat *= kept
        flat -= size * mean / (square + EPSILON**2) ** 0.5
        average.flat += pace * (flat - average.flat)
        average.statistics += pace * (self.network.statistics - average.statistics)


def log_probabilities(logits: Any, config: ModelConfig) -> Any:
    """[B, n_outputs (+ 1)] -> [B, n_classes (+ 1)]; one logit stands for the second class."""
    functions = library(logits)
    if config.n_outputs == 1:
        logits = functions.concatenate([functions.zeros_like(logits[:, :1]), logits], 1)
    logits = logits - functions.amax(logits, 1)[:, None]
    return logits - functions.log(functions.exp(logits).sum(1))[:, None]
