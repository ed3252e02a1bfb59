"""A step against PyTorch's own modules and optimiser; on a GPU, replayed against eager."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from plain_network import plain
from stapes import model, stepping
from stapes.arrays import fetch, put
from stapes.batches import Batch
from stapes.config import ModelConfig
from stapes.model import Network
from stapes.stepping import Stepper, log_probabilities

CONFIG = ModelConfig(("a", "b"), n_layers=4, n_filters=5, segment_length=301)
WEIGHT_DECAY, RATE, PACE = 0.05, 0.01, 0.3


def floats(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items() if v.is_floating_point()}


def stepper(device: str = "cpu", *, low_cut: bool = True) -> Stepper:
    network = Network(CONFIG, with_none=True, low_cut=low_cut)
    return Stepper(network, weight_decay=WEIGHT_DECAY, device=device)


def batch(seed: int, device: str = "cpu") -> Batch:
    generator = torch.Generator().manual_seed(seed)
    segments = torch.randn(6, 301, generator=generator).numpy()
    targets = torch.softmax(3 * torch.randn(6, 3, generator=generator), dim=1).numpy()
    return Batch(put(segments, device), put(targets, device), np.arange(6))


@pytest.mark.parametrize("low_cut", [False, True])
@pytest.mark.parametrize("kernels", [False, True])
def test_steps_are_those_of_pytorchs_modules_and_adamw(monkeypatch, kernels, low_cut):
    if not kernels:  # PyTorch takes over, as on other devices
        monkeypatch.setattr(model, "can_run", lambda *_: False)
    ours = stepper(low_cut=low_cut)
    module = plain(ours.network, low_cut=low_cut).double()
    for norm in module.norms:
        assert not norm.running_mean.any()  # as BatchNorm1d begins
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    average = floats(module)
    for number in range(1, 9):
        given = batch(number)
        told = ours(given, number=number, learning_rate=RATE, pace=PACE)
        segments, targets = (torch.from_numpy(a).double() for a in (given.segments, given.targets))
        logits = F.pad(module(segments), (1, 0))
        loss = F.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, value in floats(module).items():
            average[name].lerp_(value, PACE)
        right = (logits.argmax(dim=1) == targets.argmax(dim=1)).double().mean()
        assert told == (pytest.approx(loss.item(), rel=1e-4), pytest.approx(right.item()))
    for found, wanted in [(ours.network, floats(module)), (ours.average, average)]:
        if low_cut:
            wanted["convs.0.weight"] -= wanted["convs.0.weight"].mean(dim=2, keepdim=True)
        assert found.tensors().keys() == wanted.keys()
        for name, tensor in found.tensors().items():
            # A running mean holds its bias of today and not of the steps before.
            np.testing.assert_allclose(tensor, wanted[name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_steps_of_pytorchs_arrays_are_those_of_numpys(monkeypatch):
    """What a GPU computes, but for where: its arrays are PyTorch's."""
    numpys = stepper()
    for module in (model, stepping):
        monkeypatch.setattr(module, "put", lambda array, _device: torch.from_numpy(array.copy()))
    torchs = stepper()
    for number in (1, 2, 3):
        numbers = {"number": number, "learning_rate": RATE, "pace": PACE}
        given = batch(number)
        wanted = numpys(given, **numbers)
        tensors = Batch(torch.tensor(given.segments), torch.tensor(given.targets), given.clips)
        assert torchs(tensors, **numbers) == pytest.approx(wanted, rel=1e-4)
    for name, tensor in torchs.tensors().items():
        assert isinstance(tensor, torch.Tensor)
        np.testing.assert_allclose(tensor, numpys.tensors()[name], rtol=1e-2, atol=1e-3)


def test_what_is_saved_is_all_that_a_step_depends_on():
    first, second = stepper(), stepper()
    for number in (1, 2):
        first(batch(number), number=number, learning_rate=RATE, pace=PACE)
    for name, array in second.tensors().items():
        array[:] = first.tensors()[name]
    for each in (first, second):
        each(batch(3), number=3, learning_rate=RATE, pace=PACE)
    for name, array in second.tensors().items():
        assert np.array_equal(array, first.tensors()[name])


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_log_probabilities_are_of_every_class(classes):
    logits = np.float32([[800.0, -3.0, 2.0], [0.5, 1.0, -1000.0]])[:, : 2 + (len(classes) > 2)]
    padded = torch.from_numpy(logits)
    padded = F.pad(padded, (1, 0)) if len(classes) == 2 else padded
    found = log_probabilities(logits, ModelConfig(classes))
    np.testing.assert_allclose(found, F.log_softmax(padded, dim=1), rtol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_replayed_steps_are_those_of_the_processor():
    from stapes.captured import WARM_UP

    here, there = stepper(), stepper("cuda")
    for number in range(1, WARM_UP + 6):
        numbers = {"number": number, "learning_rate": RATE / number, "pace": PACE / number}
        told = there(batch(number, "cuda"), **numbers)
        assert told == pytest.approx(here(batch(number), **numbers), rel=1e-3)
    for name, tensor in there.tensors().items():
        np.testing.assert_allclose(fetch(tensor), here.tensors()[name], rtol=1e-2, atol=1e-3)
