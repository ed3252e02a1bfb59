"""The network, as it is trained; returns logits."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from stapes.config import ModelConfig, same_padding
from stapes.engine import NORMALISATION_EPSILON


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
        self.head = nn.Linear(config.n_filters, config.n_outputs)

    def forward(self, segments: Tensor) -> Tensor:
        """Logits of normalised segments: [B, T] -> [B, n_outputs]."""
        x = segments[:, None, :]  # [B, 1, T]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            padding = same_padding(
                x.shape[-1], kernel_size=self.config.kernel_size, stride=self.config.stride
            )
            x = F.relu(norm(conv(F.pad(x, padding))))  # [B, C, ceil(T / stride)]
        logits: Tensor = self.head(x.mean(dim=-1))
        return logits
