"""A step against PyTorch's own modules and optimiser; on a GPU, replayed against eager."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stapes import native_autograd
from stapes.batches import Batch
from stapes.config import ModelConfig, same_padding
from stapes.engine import NORMALISATION_EPSILON
from stapes.model import Network
from stapes.stepping import WARM_UP, Stepper, log_probabilities

CONFIG = ModelConfig(("a", "b"), n_layers=4, n_filters=5, segment_length=301)
WEIGHT_DECAY, RATE, PACE = 0.05, 0.01, 0.3


class Plain(nn.Module):
    """The network of PyTorch's modules, whose names are those of a saved model."""

    def __init__(self, config: ModelConfig, *, low_cut: bool) -> None:
        super().__init__()
        self.low_cut = low_cut
        sizes = [1] + [config.n_filters] * config.n_layers
        self.convs = nn.ModuleList(nn.Conv1d(i, o, 3, 2) for i, o in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(n, NORMALISATION_EPSILON) for n in sizes[1:])
        self.head = nn.Linear(config.n_filters, config.n_outputs)
        self.none = nn.Linear(config.n_filters, 1)

    def forward(self, segments):
        x = segments[:, None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            weight = conv.weight
            if self.low_cut and conv is self.convs[0]:
                weight = weight - weight.sum(dim=2, keepdim=True) / 3
            padded = F.pad(x, same_padding(x.shape[-1], kernel_size=3, stride=2))
            x = F.relu(norm(F.conv1d(padded, weight, conv.bias, stride=2)))
        pooled = x.mean(dim=-1)
        return torch.cat([self.head(pooled), self.none(pooled)], dim=1)


def floats(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items() if v.is_floating_point()}


def stepper(device: str = "cpu", *, low_cut: bool = True) -> Stepper:
    torch.manual_seed(0)
    network = Network(CONFIG, with_none=True, low_cut=low_cut).to(device)
    return Stepper(network, weight_decay=WEIGHT_DECAY)


def batch(seed: int, device: str = "cpu") -> Batch:
    generator = torch.Generator().manual_seed(seed)
    segments = torch.randn(6, 301, generator=generator)
    targets = torch.softmax(3 * torch.randn(6, 3, generator=generator), dim=1)
    return Batch(segments.to(device), targets.to(device), np.arange(6))


@pytest.mark.parametrize("low_cut", [False, True])
@pytest.mark.parametrize("kernels", [False, True])
def test_steps_are_those_of_pytorchs_modules_and_adamw(monkeypatch, kernels, low_cut):
    if not kernels:  # PyTorch takes over, as on other devices
        monkeypatch.setattr(native_autograd, "_native_can", lambda *_: False)
    ours = stepper(low_cut=low_cut)
    plain = Plain(CONFIG, low_cut=low_cut)
    missing = plain.load_state_dict(ours.network.tensors(), strict=False).missing_keys
    assert all(name.endswith("num_batches_tracked") for name in missing)
    for i in range(CONFIG.n_layers):
        assert not plain.norms[i].running_mean.any()  # as BatchNorm1d begins
    plain.double()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    average = floats(plain)
    for number in range(1, 9):
        given = batch(number)
        told = ours(given, number=number, learning_rate=RATE, pace=PACE)
        logits = F.pad(plain(given.segments.double()), (1, 0))
        loss = F.cross_entropy(logits, given.targets.double())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, value in floats(plain).items():
            average[name].lerp_(value, PACE)
        right = (logits.argmax(dim=1) == given.targets.argmax(dim=1)).double().mean()
        assert told == (pytest.approx(loss.item(), rel=1e-4), pytest.approx(right.item()))
    for found, wanted in [(ours.network, floats(plain)), (ours.average, average)]:
        if low_cut:
            wanted["convs.0.weight"] -= wanted["convs.0.weight"].mean(dim=2, keepdim=True)
        assert found.tensors().keys() == wanted.keys()
        for name, tensor in found.tensors().items():
            # A running mean holds its bias of today and not of the steps before.
            np.testing.assert_allclose(tensor, wanted[name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_what_is_saved_is_all_that_a_step_depends_on():
    first, second = stepper(), stepper()
    for number in (1, 2):
        first(batch(number), number=number, learning_rate=RATE, pace=PACE)
    for name, tensor in second.tensors().items():
        tensor.copy_(first.tensors()[name])
    for each in (first, second):
        each(batch(3), number=3, learning_rate=RATE, pace=PACE)
    for name, tensor in second.tensors().items():
        assert torch.equal(tensor, first.tensors()[name])


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_log_probabilities_are_of_every_class(classes):
    logits = torch.tensor([[800.0, -3.0, 2.0], [0.5, 1.0, -1000.0]])[:, : 2 + (len(classes) > 2)]
    found = log_probabilities(logits, ModelConfig(classes))
    padded = F.pad(logits, (1, 0)) if len(classes) == 2 else logits
    np.testing.assert_allclose(found, F.log_softmax(padded, dim=1), rtol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_replayed_steps_are_those_of_the_processor():
    here, there = stepper(), stepper("cuda")
    for number in range(1, WARM_UP + 6):
        numbers = {"number": number, "learning_rate": RATE / number, "pace": PACE / number}
        told = there(batch(number, "cuda"), **numbers)
        assert told == pytest.approx(here(batch(number), **numbers), rel=1e-3)
    for name, tensor in there.tensors().items():
        np.testing.assert_allclose(tensor.cpu(), here.tensors()[name], rtol=1e-2, atol=1e-3)
