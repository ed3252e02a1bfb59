"""The network, as it is trained; returns logits."""

from itertools import pairwise

from torch import Tensor, nn

from stapes.config import ModelConfig
from stapes.engine import NORMALISATION_EPSILON
from stapes.native import Scratch
from stapes.native_autograd import pooled_activations


class Network(nn.Module):
    """Blocks of Conv1d -> batch normalisation -> ReLU, mean over time, one linear unit a logit."""

    def __init__(self, config: ModelConfig) -> None:
        """Draw the initial weights from torch's current random state.

        Args:
            config: the network's numbers.
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

    def forward(self, segments: Tensor) -> Tensor:
        """Logits of normalised segments: [B, T] -> [B, n_outputs]."""
        pooled = pooled_activations(
            segments, self.convs, self.norms, training=self.training, scratch=self.scratch
        )  # [B, C]
        logits: Tensor = self.head(pooled)
        return logits
