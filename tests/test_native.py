"""The training kernels against PyTorch in float64, on every build."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes import native
from stapes.config import same_padding

torch = pytest.importorskip("torch")
if not native.available():
    pytest.skip("the native kernels are not built", allow_module_level=True)

from stapes.native_autograd import pooled_activations  # noqa: E402

EPSILON = 1e-3
CLASSIC = {"channels": [10] * 10, "kernels": [3] * 10, "strides": [2] * 10}


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def build(request, monkeypatch):
    """Each build in turn; one that the processor lacks falls back to the next."""
    monkeypatch.setenv("STAPES_KERNELS", request.param)


def random_blocks(rng, *, channels, kernels, strides):
    sizes = list(zip([1, *channels], channels, kernels, strict=False))
    return native.Blocks(
        [rng.normal(size=(o, i, k), scale=(i * k) ** -0.5).astype(np.float32) for i, o, k in sizes],
        [rng.normal(1, 0.3, size=o).astype(np.float32) for _, o, _ in sizes],
        [rng.normal(0, 0.3, size=o).astype(np.float32) for _, o, _ in sizes],
        tuple(strides),
    )


def waveforms(rng, batch, length):
    """Noise whose low notes are the strongest, as in recordings."""
    x = np.cumsum(rng.normal(size=(batch, length)), axis=1)
    x -= x.mean(axis=1, keepdims=True)
    return (x / (x.std(axis=1, keepdims=True) + 0.1)).astype(np.float32)


def torch_double(x, blocks, d_pooled):
    """Pooled values, means, variances and gradients by PyTorch in float64."""
    leaves = [
        [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in part]
        for part in (blocks.weights, blocks.gammas, blocks.betas)
    ]
    y, means, variances = torch.tensor(x, dtype=torch.float64)[:, None], [], []
    for w, gamma, beta, stride in zip(*leaves, blocks.strides, strict=True):
        padding = same_padding(y.shape[-1], kernel_size=w.shape[-1], stride=stride)
        y = torch.nn.functional.conv1d(torch.nn.functional.pad(y, padding), w, stride=stride)
        mean, variance = y.mean((0, 2)), y.var((0, 2), correction=0)
        means.append(mean.detach())
        variances.append(variance.detach())
        normal = (y - mean[:, None]) / torch.sqrt(variance[:, None] + EPSILON)
        y = torch.relu(normal * gamma[:, None] + beta[:, None])
    pooled = y.mean(-1)
    (pooled * torch.tensor(d_pooled)).sum().backward()
    return pooled.detach(), means, variances, [[t.grad for t in part] for part in leaves]


def run(x, blocks, d_pooled, *, n_threads=2, scratch=None):
    scratch = scratch or native.Scratch()
    forward = native.trunk_train_forward(
        x, blocks, epsilon=EPSILON, n_threads=n_threads, scratch=scratch
    )
    return forward, native.trunk_train_backward(forward, d_pooled, n_threads=n_threads)


def assert_close(found, wanted, *, tolerance, floor=0.0):
    """The error's norm against the norm of what is wanted (or a floor, where that is tiny)."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape
    assert np.linalg.norm(found - wanted) <= tolerance * max(np.linalg.norm(wanted), floor)


def compare_with_torch(seed, batch, length, *, tolerance, floor=0.0, **shape):
    rng = np.random.default_rng(seed)
    blocks, x = random_blocks(rng, **shape), waveforms(rng, batch, length)
    d_pooled = rng.normal(size=(batch, shape["channels"][-1])).astype(np.float32)
    pooled, means, variances, gradients = torch_double(x, blocks, d_pooled)
    forward, found = run(x, blocks, d_pooled)
    pairs = [(forward.pooled, pooled), *zip(forward.means, means, strict=True)]
    pairs += zip(forward.variances, variances, strict=True)
    for part, wanted in zip((found.weights, found.gammas, found.betas), gradients, strict=True):
        pairs += zip(part, wanted, strict=True)
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


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shapes, st.integers(1, 20), st.integers(1, 700), st.integers(0, 2**32 - 1))
def test_gradients_of_random_shapes(shape, batch, length, seed):
    # A few frames may leave gradients that cancel to nothing: hold those against what goes in.
    compare_with_torch(seed, batch, length, tolerance=1e-4, floor=1.0, **shape)


def test_same_bits_at_any_number_of_threads(build):
    rng = np.random.default_rng(0)
    blocks, x = random_blocks(rng, **CLASSIC), waveforms(rng, 21, 3_001)
    d_pooled = rng.normal(size=(21, 10)).astype(np.float32)
    first, d_first = run(x, blocks, d_pooled, n_threads=1)
    scratch = native.Scratch()
    for n_threads in (2, 3, 7, 40):  # the scratch memory of one is the next one's
        again, d_again = run(x, blocks, d_pooled, n_threads=n_threads, scratch=scratch)
        assert first.pooled.tobytes() == again.pooled.tobytes()
        for a, b in zip(d_first.weights, d_again.weights, strict=True):
            assert a.tobytes() == b.tobytes()


def test_a_broken_batch_is_seen_and_leaves_no_trace(build):
    rng = np.random.default_rng(0)
    blocks, x = random_blocks(rng, **CLASSIC), waveforms(rng, 2, 2_000)
    d_pooled, scratch = np.ones((2, 10), np.float32), native.Scratch()
    wanted, d_wanted = run(x, blocks, d_pooled)
    broken = x.copy()
    broken[1, 1_000] = np.nan
    forward, gradients = run(broken, blocks, d_pooled, scratch=scratch)
    assert np.isnan(forward.pooled).all()
    assert np.isnan(gradients.weights[3]).all()
    after, d_after = run(x, blocks, d_pooled, scratch=scratch)
    assert after.pooled.tobytes() == wanted.pooled.tobytes()
    for a, b in zip(d_after.weights, d_wanted.weights, strict=True):
        assert a.tobytes() == b.tobytes()


def changed(blocks, **parts):
    fields = ("weights", "gammas", "betas", "strides")
    return native.Blocks(**({f: getattr(blocks, f) for f in fields} | parts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, b: (x[0], b), "x has shape"),
        (lambda x, b: (x[:0], b), "batch and length"),
        (lambda x, b: (x[:, :0], b), "batch and length"),
        (lambda x, b: (x, changed(b, weights=[], strides=())), "at least one block"),
        (lambda x, b: (x, changed(b, weights=b.weights[1:])), "one number a layer"),
        (lambda x, b: (x, changed(b, weights=[b.weights[1], *b.weights[1:]])), "parameters has"),
        (lambda x, b: (x, changed(b, gammas=b.gammas[1:])), "parameters has"),
        (lambda x, b: (x, changed(b, betas=[b.betas[0][:4], *b.betas[1:]])), "parameters has"),
        (lambda x, b: (x, changed(b, strides=(3,) * 10)), "strides must be"),
        (lambda x, b: (x, changed(b, strides=(0,) * 10)), "strides must be"),
    ],
)
def test_shapes_are_checked(change, message):
    rng = np.random.default_rng(0)
    x, blocks = change(waveforms(rng, 2, 500), random_blocks(rng, **CLASSIC))
    with pytest.raises(ValueError, match=message):
        run(x, blocks, np.ones((2, 10), np.float32))


def test_threads_epsilon_and_gradients_are_checked():
    rng = np.random.default_rng(0)
    x, blocks = waveforms(rng, 2, 500), random_blocks(rng, **CLASSIC)
    d_pooled, scratch = np.ones((2, 10), np.float32), native.Scratch()
    for wrong in ({"n_threads": 0}, {"n_threads": 1_000}, {"epsilon": -1.0}, {"epsilon": np.nan}):
        arguments = {"n_threads": 1, "epsilon": EPSILON} | wrong
        with pytest.raises(ValueError, match=next(iter(wrong))):
            native.trunk_train_forward(x, blocks, scratch=scratch, **arguments)
    forward, _ = run(x, blocks, d_pooled)
    with pytest.raises(ValueError, match="had its backward pass"):
        native.trunk_train_backward(forward, d_pooled, n_threads=1)
    forward = native.trunk_train_forward(x, blocks, epsilon=1e-3, n_threads=1, scratch=scratch)
    with pytest.raises(ValueError, match="d_pooled has shape"):
        native.trunk_train_backward(forward, d_pooled[:, :9], n_threads=1)


class Trunk(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        sizes = [1, 6, 6, 6]
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv1d(i, o, 3, 2) for i, o in itertools.pairwise(sizes)
        )
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm1d(6, eps=EPSILON) for _ in range(3))
        self.scratch = native.Scratch()

    def forward(self, x):
        return pooled_activations(
            x, self.convs, self.norms, training=self.training, scratch=self.scratch
        )


def test_module_agrees_with_batch_norm():
    module, x = Trunk(), torch.randn(4, 501)
    double = copy.deepcopy(module).double()  # PyTorch's path: the kernels are single precision
    for _ in range(2):
        module(x).square().sum().backward()
        double(x.double()).square().sum().backward()
    for (name, a), b in zip(module.named_parameters(), double.parameters(), strict=True):
        if name.startswith("convs") and name.endswith("bias"):
            assert (a.grad == 0).all()
        assert_close(a.grad, b.grad, tolerance=1e-4, floor=1e-6)
    for a, b in zip(module.buffers(), double.buffers(), strict=True):
        assert_close(a, b, tolerance=1e-5)
    module.eval(), double.eval()
    with torch.no_grad():
        assert_close(module(x), double(x.double()), tolerance=1e-5)
    assert_close(module(x).detach(), double(x.double()).detach(), tolerance=1e-5)


def test_module_gives_pytorch_what_the_kernels_cannot_do():
    module, x = Trunk(), torch.randn(2, 300, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None


def test_two_passes_before_their_backward_passes():
    module, x, z = Trunk(), torch.randn(3, 400), torch.randn(3, 400)
    (module(x).square().sum() + 2 * module(z).square().sum()).backward()
    together = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    module(x).square().sum().backward()
    (2 * module(z).square().sum()).backward()
    for a, b in zip(together, module.parameters(), strict=True):
        assert_close(a, b.grad, tolerance=1e-6)


def test_scratch_is_reused_and_never_copied():
    module, x = Trunk(), torch.randn(3, 400)
    for _ in range(3):
        module(x).sum().backward()
    assert len(module.scratch.spare) == 1
    assert copy.deepcopy(module).scratch.spare == []
    assert pickle.loads(pickle.dumps(module.scratch)).spare == []
    for length in range(300, 310):
        module(x[:, :length]).sum().backward()
    assert len(module.scratch.spare) == native.SPARE_SCRATCH


def test_missing_kernels_are_told(monkeypatch):
    module, x = Trunk(), torch.randn(3, 400)
    wanted = module(x)
    monkeypatch.setattr(native, "_native", None)
    assert (native.available(), native.kernels()) == (False, "none")
    with pytest.warns(RuntimeWarning, match="PyTorch takes over"):
        found = module(x)
    assert_close(found.detach(), wanted.detach(), tolerance=1e-5)
