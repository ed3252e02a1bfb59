"""The network of PyTorch's own modules, to compare with."""

import torch
from torch import nn
from torch.nn import functional as F

from stapes.config import ModelConfig, same_padding
from stapes.engine import NORMALISATION_EPSILON
from stapes.model import Network


class Plain(nn.Module):
    """Its names are those of a saved model."""

    def __init__(
        self, config: ModelConfig, *, with_none: bool = False, low_cut: bool = False
    ) -> None:
        super().__init__()
        self.low_cut = low_cut
        shapes = zip(config.kernel_shapes, config.strides, strict=True)
        self.convs = nn.ModuleList(nn.Conv1d(i, o, k, stride) for (o, i, k), stride in shapes)
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(n, NORMALISATION_EPSILON) for n in config.channels
        )
        self.head = nn.Linear(config.channels[-1], config.n_outputs)
        self.none = nn.Linear(config.channels[-1], 1) if with_none else None

    def forward(self, segments):
        x = segments[:, None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            weight, (k,), (stride,) = conv.weight, conv.kernel_size, conv.stride
            if self.low_cut and conv is self.convs[0]:
                weight = weight - weight.sum(dim=2, keepdim=True) / k
            padded = F.pad(x, same_padding(x.shape[-1], kernel_size=k, stride=stride))
            x = F.relu(norm(F.conv1d(padded, weight, conv.bias, stride=stride)))
        pooled = x.mean(dim=-1)
        heads = [self.head(pooled)] + ([self.none(pooled)] if self.none else [])
        return torch.cat(heads, dim=1)


def plain(network: Network, *, low_cut: bool = False) -> Plain:
    """With the weights of a network, which are those in use, in training mode."""
    found = network.tensors()
    module = Plain(network.config, with_none="none.bias" in found, low_cut=low_cut)
    tensors = {name: torch.from_numpy(array) for name, array in found.items()}
    missing = module.load_state_dict(tensors, strict=False).missing_keys
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return module


def answers(network: Network, segments) -> torch.Tensor:
    """Logits afterwards: [B, T] -> [B, n_outputs (+ 1)]."""
    with torch.no_grad():
        return plain(network).eval()(torch.as_tensor(segments))
