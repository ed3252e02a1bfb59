"""The training kernels against PyTorch in float64, on every build."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from stapes import native, native_pass
from stapes.config import ModelConfig, same_padding

torch = pytest.importorskip("torch")
if not native.available():
    pytest.skip("the native kernels are not built", allow_module_level=True)

from plain_network import plain  # noqa: E402
from stapes.model import Network  # noqa: E402
from stapes.native_autograd import training_logits  # noqa: E402

EPSILON = 1e-3
CLASSIC = {"channels": [10] * 10, "kernels": [3] * 10, "strides": [2] * 10}


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def build(request, monkeypatch):
    """Each build in turn; one that the processor lacks falls back to the next."""
    monkeypatch.setenv("STAPES_KERNELS", request.param)


def random_blocks(rng, *, channels, kernels, strides):
    """Sizes, and parameters in one flat array."""
    blocks = native.Blocks(tuple(channels), tuple(kernels), tuple(strides))
    n, parts = len(channels), []
    for i, shape in enumerate(blocks.shapes):
        scale = np.prod(shape[1:]) ** -0.5 if i < n else 0.3
        parts.append(rng.normal(1 if n <= i < 2 * n else 0, scale, shape).ravel())
    return blocks, np.concatenate(parts).astype(np.float32)


def parts_of(flat, blocks):
    """Weights, gammas and betas, a list of one array a block each."""
    ends = np.cumsum([np.prod(shape) for shape in blocks.shapes])
    parts = [
        part.reshape(shape)
        for part, shape in zip(np.split(flat, ends[:-1]), blocks.shapes, strict=True)
    ]
    n = len(blocks.channels)
    return parts[:n], parts[n : 2 * n], parts[2 * n :]


def waveforms(rng, batch, length):
    """Noise whose low notes are the strongest, as in recordings."""
    x = np.cumsum(rng.normal(size=(batch, length)), axis=1)
    x -= x.mean(axis=1, keepdims=True)
    return (x / (x.std(axis=1, keepdims=True) + 0.1)).astype(np.float32)


class AtAKinkError(Exception):
    """Rounding decides whether some ReLU is open, and so what the gradient is."""


def torch_double(x, blocks, parameters, d_pooled):
    """Pooled values, means, variances and gradients by PyTorch in float64."""
    leaves = [
        [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in part]
        for part in parts_of(parameters, blocks)
    ]
    y, means, variances = torch.tensor(x, dtype=torch.float64)[:, None], [], []
    for w, gamma, beta, stride in zip(*leaves, blocks.strides, strict=True):
        padding = same_padding(y.shape[-1], kernel_size=w.shape[-1], stride=stride)
        y = torch.nn.functional.conv1d(torch.nn.functional.pad(y, padding), w, stride=stride)
        mean, variance = y.mean((0, 2)), y.var((0, 2), correction=0)
        means.append(mean.detach())
        variances.append(variance.detach())
        normal = (y - mean[:, None]) / torch.sqrt(variance[:, None] + EPSILON)
        before = normal * gamma[:, None] + beta[:, None]
        if before.abs().min() < 1e-7:
            raise AtAKinkError
        y = torch.relu(before)
    pooled = y.mean(-1)
    (pooled * torch.tensor(d_pooled)).sum().backward()
    statistics = torch.stack([torch.cat(means), torch.cat(variances)])
    return pooled.detach(), statistics, [[t.grad for t in part] for part in leaves]


def run(x, network, d_pooled, *, n_threads=2, scratch=None):
    """The forward pass, and the gradient of the parameters, flat."""
    blocks, parameters = network
    scratch = scratch or native.Scratch()
    forward = native.trunk_train_forward(
        x, parameters, blocks, epsilon=EPSILON, n_threads=n_threads, scratch=scratch
    )
    gradient = np.full_like(parameters, np.nan)
    native.trunk_train_backward(forward, d_pooled, n_threads=n_threads, out=gradient)
    return forward, gradient


def assert_close(found, wanted, *, tolerance, floor=0.0):
    """The error's norm against the norm of what is wanted (or a floor, where that is tiny)."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape
    assert np.linalg.norm(found - wanted) <= tolerance * max(np.linalg.norm(wanted), floor)


def compare_with_torch(seed, batch, length, *, tolerance, floor=0.0, **shape):
    rng = np.random.default_rng(seed)
    network, x = random_blocks(rng, **shape), waveforms(rng, batch, length)
    d_pooled = rng.normal(size=(batch, shape["channels"][-1])).astype(np.float32)
    pooled, statistics, gradients = torch_double(x, *network, d_pooled)
    forward, gradient = run(x, network, d_pooled)
    pairs = [(forward.pooled, pooled)]
    ends = np.cumsum(shape["channels"])[:-1]
    for found, wanted in zip(forward.statistics, statistics, strict=True):
        pairs += zip(np.split(found, ends), np.split(wanted.numpy(), ends), strict=True)
    for found, wanted in zip(parts_of(gradient, network[0]), gradients, strict=True):
        pairs += zip(found, wanted, strict=True)
    for a, b in pairs:
        assert_close(a, b, tolerance=tolerance, floor=floor)


@pytest.mark.parametrize("length", [16_000, 15_999, 4_097])
def test_classic_gradients(build, length):
    # The gradients that go in are near 1; what cancels to under a thousandth of it is rounding.
    compare_with_torch(length, 3, length, tolerance=1e-4, floor=1e-3, **CLASSIC)


@pytest.mark.parametrize(
    "shape",
    [
        {"channels": [64] * 3, "kernels": [3] * 3, "strides": [2] * 3},
        {"channels": [13] * 4, "kernels": [64, 5, 5, 4], "strides": [4, 4, 2, 2]},
        {"channels": [10, 20, 6], "kernels": [255, 3, 129], "strides": [16, 1, 8]},
        {"channels": [5], "kernels": [3], "strides": [2]},
    ],
)
def test_gradients_of_the_family(build, shape):
    compare_with_torch(1, 18, 1_501, tolerance=1e-4, floor=1e-3, **shape)


shapes = st.integers(1, 4).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "channels": st.lists(st.integers(1, 20), min_size=n, max_size=n),
            "kernels": st.lists(st.integers(1, 9), min_size=n, max_size=n),
            "strides": st.lists(st.sampled_from(native.STRIDES), min_size=n, max_size=n),
        }
    )
)


@settings(max_examples=40, derandomize=True)
@given(shapes, st.integers(1, 20), st.integers(1, 700), st.integers(0, 2**32 - 1))
def test_gradients_of_random_shapes(shape, batch, length, seed):
    # A few frames may leave gradients that cancel to nothing: hold those against what goes in.
    try:
        compare_with_torch(seed, batch, length, tolerance=1e-4, floor=1.0, **shape)
    except AtAKinkError:
        reject()


def test_same_bits_at_any_number_of_threads(build):
    rng = np.random.default_rng(0)
    network, x = random_blocks(rng, **CLASSIC), waveforms(rng, 21, 3_001)
    d_pooled = rng.normal(size=(21, 10)).astype(np.float32)
    first, d_first = run(x, network, d_pooled, n_threads=1)
    scratch = native.Scratch()
    for n_threads in (2, 3, 7, 40):  # the scratch memory of one is the next one's
        again, d_again = run(x, network, d_pooled, n_threads=n_threads, scratch=scratch)
        assert first.pooled.tobytes() == again.pooled.tobytes()
        assert d_first.tobytes() == d_again.tobytes()


def test_a_broken_batch_is_seen_and_leaves_no_trace(build):
    rng = np.random.default_rng(0)
    network, x = random_blocks(rng, **CLASSIC), waveforms(rng, 2, 2_000)
    d_pooled, scratch = np.ones((2, 10), np.float32), native.Scratch()
    wanted, d_wanted = run(x, network, d_pooled)
    broken = x.copy()
    broken[1, 1_000] = np.nan
    forward, gradient = run(broken, network, d_pooled, scratch=scratch)
    assert np.isnan(forward.pooled).all()
    assert np.isnan(parts_of(gradient, network[0])[0][3]).all()
    after, d_after = run(x, network, d_pooled, scratch=scratch)
    assert after.pooled.tobytes() == wanted.pooled.tobytes()
    assert d_after.tobytes() == d_wanted.tobytes()


def changed(network, **parts):
    return dataclasses.replace(network[0], **parts), network[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, n: (x[0], n), "x has shape"),
        (lambda x, n: (x[:0], n), "batch and length"),
        (lambda x, n: (x[:, :0], n), "batch and length"),
        (lambda x, n: (x, changed(n, channels=(), strides=())), "at least one block"),
        (lambda x, n: (x, changed(n, channels=(10,) * 9)), "one number a layer"),
        (lambda x, n: (x, changed(n, channels=(9,) * 10)), "parameters has"),
        (lambda x, n: (x, (n[0], n[1][1:])), "parameters has"),
        (lambda x, n: (x, (n[0], n[1][None])), "parameters has"),
        (lambda x, n: (x, changed(n, strides=(3,) * 10)), "strides must be"),
        (lambda x, n: (x, changed(n, strides=(0,) * 10)), "strides must be"),
    ],
)
def test_shapes_are_checked(change, message):
    rng = np.random.default_rng(0)
    x, network = change(waveforms(rng, 2, 500), random_blocks(rng, **CLASSIC))
    with pytest.raises(ValueError, match=message):
        run(x, network, np.ones((2, 10), np.float32))


def test_threads_epsilon_and_gradients_are_checked():
    rng = np.random.default_rng(0)
    x, (blocks, parameters) = waveforms(rng, 2, 500), random_blocks(rng, **CLASSIC)
    d_pooled, scratch = np.ones((2, 10), np.float32), native.Scratch()
    out, good = np.empty_like(parameters), {"n_threads": 1, "epsilon": EPSILON, "scratch": scratch}
    for wrong in ({"n_threads": 0}, {"epsilon": -1.0}, {"epsilon": np.nan}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            native.trunk_train_forward(x, parameters, blocks, **good | wrong)
    forward, _ = run(x, (blocks, parameters), d_pooled)
    with pytest.raises(ValueError, match="had its backward pass"):
        native.trunk_train_backward(forward, d_pooled, n_threads=1, out=out)
    forward = native.trunk_train_forward(x, parameters, blocks, **good)
    for d, gradient, message in [
        (d_pooled[:, :9], out, "d_pooled has shape"),
        (d_pooled, out[1:], "gradients has shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            native.trunk_train_backward(forward, d, n_threads=1, out=gradient)


def network(**sizes) -> Network:
    small = {"n_layers": 3, "n_filters": 6, "segment_length": 501}
    return Network(ModelConfig(("a", "b", "c"), **small | sizes), with_none=True)


def in_a_graph(net: Network, x: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    return training_logits(x, flat, net.blocks, scratch=net.scratch)[0]


def leaf(net: Network) -> torch.Tensor:
    return torch.from_numpy(net.flat.copy()).requires_grad_()


def segments(n: int, length: int) -> torch.Tensor:
    return torch.randn(n, length, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("by_pytorch", [False, True])
def test_gradients_are_those_of_pytorchs_modules(monkeypatch, by_pytorch):
    if by_pytorch:
        monkeypatch.setattr(native_pass, "can_run", lambda *_: False)
    net, x, module = network(), segments(4, 501), plain(network()).double()
    logits = module(x.double())
    logits.square().sum().backward()
    flat = leaf(net)
    found = in_a_graph(net, x, flat)
    found.square().sum().backward()
    assert_close(found.detach(), logits.detach(), tolerance=1e-5)
    sizes = [t.size for name, t in net.tensors().items() if "running" not in name]
    wanted = dict(module.named_parameters())
    for name, gradient in zip(net.tensors(), flat.grad.split(sizes), strict=False):
        if name.startswith("convs") and "bias" in name:
            assert not gradient.any()  # normalisation takes it away again
        else:
            assert_close(gradient, wanted[name].grad.flatten(), tolerance=1e-5)


@pytest.mark.parametrize("sizes", [{}, {"stride": 3}])
def test_pytorch_does_what_the_kernels_cannot(sizes):
    net, x = network(**sizes), segments(2, 501).requires_grad_()
    in_a_graph(net, x, leaf(net)).sum().backward()
    assert x.grad is not None


def test_two_passes_before_their_backward_passes():
    net, x, z = network(), segments(3, 501), segments(6, 501)[3:]
    together, apart = leaf(net), leaf(net)
    (
        in_a_graph(net, x, together).square().sum() + 2 * in_a_graph(net, z, together).sum()
    ).backward()
    in_a_graph(net, x, apart).square().sum().backward()
    (2 * in_a_graph(net, z, apart).sum()).backward()
    assert_close(together.grad, apart.grad, tolerance=1e-6)


def test_scratch_is_reused_and_never_copied():
    net, x = network(), segments(3, 400).numpy()

    def learn(x):
        logits, _, gradient = net.training_pass(x)
        gradient(np.ones_like(logits))

    for _ in range(3):
        learn(x)
    assert len(net.scratch.spare) == 1
    assert copy.deepcopy(net).scratch.spare == []
    assert pickle.loads(pickle.dumps(net.scratch)).spare == []
    for length in range(300, 310):
        learn(x[:, :length])
    assert len(net.scratch.spare) == native.SPARE_SCRATCH


def test_missing_kernels_are_told(monkeypatch):
    net, x = network(), segments(3, 400).numpy()
    wanted = net.training_pass(x)[0]
    monkeypatch.setattr(native, "_native", None)
    assert (native.available(), native.kernels()) == (False, "none")
    with pytest.warns(RuntimeWarning, match="PyTorch takes over"):
        found = net.training_pass(x)[0]
    assert_close(found, wanted, tolerance=1e-5)
