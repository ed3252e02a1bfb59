"""The network, as it is trained; returns logits."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from stapes.config import ModelConfig
from stapes.engine import NORMALISATION_EPSILON
from stapes.native import Scratch
from stapes.native_autograd import pooled_activations


class Network(nn.Module):
    """Blocks of Conv1d -> batch normalisation -> ReLU, mean over time, one linear unit a logit."""

    def __init__(self, config: ModelConfig, *, with_none: bool = False) -> None:
        """Draw the initial weights from torch's current random state.

        Args:
            config: the network's numbers.
            with_none: one more unit beside the head, for what is none of the classes.
        """
        super().__init__()
        self.config = config
        sizes = [1] + [config.n_filters] * config.n_layers
        self.convs = nn.ModuleList(
            nn.Conv1d(n_in, n_out, config.kernel_size, config.stride)
            for n_in, n_out in pairwise(sizes)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(n_out, eps=NORMALISATION_EPSILON) for n_out in sizes[1:]
        )
        self.scratch = Scratch()
        self.head = nn.Linear(config.n_filters, config.n_outputs)
        self.none = nn.Linear(config.n_filters, 1) if with_none else None

    def forward(self, segments: Tensor) -> Tensor:
        """Logits of normalised segments, that of "none" last: [B, T] -> [B, n_outputs (+ 1)]."""
        pooled = pooled_activations(
            segments, self.convs, self.norms, training=self.training, scratch=self.scratch
        )  # [B, C]
        logits: Tensor = self.head(pooled)
        return logits if self.none is None else torch.cat([logits, self.none(pooled)], dim=1)
