"""Peers that answer: for each a few ways to run the same network, of which the quickest counts."""

import sys
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import peers
import presenting
from peers import TorchNetwork, arrays, folded, like
from stapes.config import ModelConfig

SEGMENT_LENGTH = 16_000

Array = NDArray[np.float32]
Runner = Callable[[Array], Array]
"""Segments [B, T] -> logits [B, n_outputs]."""

Ways = dict[str, Runner]


def make(
    network: TorchNetwork,
    config: ModelConfig,
    *,
    folder: Path,
    threads: int,
    without: Collection[str],
    normalising: bool = False,
) -> dict[str, Ways]:
    """All peers that work here, by name; each with its ways by name.

    Args:
        network: the weights, in plain PyTorch.
        config: the network's numbers.
        folder: for the exported network.
        threads: that each may use.
        without: names to leave out.
        normalising: segments come as they were cut, and are normalised in the peer's own graph.
    """
    torch.set_num_threads(threads)
    forms = {"": {}, f"{peers.LANES} filters": {"n_filters": peers.LANES, "channels_last": True}}
    paths = {}
    for form, options in forms.items():
        ending = f"{len(paths)}{'_normalising' * normalising}.onnx"
        paths[form] = folder / f"network_{ending}"
        other = folded(like(network, config, normalise=normalising, **options))
        peers.write_onnx(other, config, paths[form])
    makers: dict[str, Callable[[], Ways]] = {
        "PyTorch": lambda: eager(network, config, normalise=normalising),
        "torch.compile": lambda: compiled(network, config, normalise=normalising),
        "TensorFlow": lambda: tensorflow(network, config, threads, normalising=normalising),
        "ONNX Runtime": lambda: in_forms(paths, lambda path: onnx_runtime(path, threads)),
        "OpenVINO": lambda: in_forms(paths, lambda path: openvino(path, threads)),
    }
    made = {name: maker() for name, maker in makers.items() if name not in without}
    return {name: ways for name, ways in made.items() if ways}


def in_forms(paths: Mapping[str, Path], make_ways: Callable[[Path], Ways]) -> Ways:
    """The ways of a peer with the network as it is, and in two dimensions with filters of no use.

    Some have quicker kernels for these, whose channels fill their vectors.
    """
    return {
        ", ".join(filter(None, (way, form))): run
        for form, path in paths.items()
        for way, run in make_ways(path).items()
    }


def eager(network: TorchNetwork, config: ModelConfig, *, normalise: bool) -> Ways:
    """As it was trained; with normalisation folded in; channels-last, with 16 filters of use."""
    forms = {
        "as trained": like(network, config, normalise=normalise),
        "folded": folded(like(network, config, normalise=normalise)),
        "channels-last": folded(like(network, config, channels_last=True, normalise=normalise)),
        "channels-last, 16 filters": folded(
            like(
                network,
                config,
                n_filters=peers.LANES,
                channels_last=True,
                normalise=normalise,
            )
        ),
    }
    return {name: _torch_runner(form) for name, form in forms.items()}


def compiled(network: TorchNetwork, config: ModelConfig, *, normalise: bool) -> Ways:
    """Compiled with normalisation folded in, in both layouts; nothing if that does not work."""
    presenting.say("torch.compile: compiling, which takes minutes")
    torch._dynamo.reset()
    ways = {}
    for name, options in peers.COMPILED_FORMS.items():
        form = folded(like(network, config, normalise=normalise, **options))
        run = _torch_runner(torch.compile(form))
        two = np.zeros((2, config.segment_length), np.float32)
        if peers.works(lambda run=run, two=two: run(two), name=f"torch.compile, {name}"):
            ways[name] = run
    return ways


def _torch_runner(network: Callable[[torch.Tensor], torch.Tensor]) -> Runner:
    def run(segments: Array) -> Array:
        with torch.inference_mode():
            return network(torch.from_numpy(segments)).numpy()

    return run


def tensorflow(
    network: TorchNetwork, config: ModelConfig, threads: int, *, normalising: bool
) -> Ways:
    """As one graph, with and without XLA."""
    tf = peers.tensorflow(threads)
    model = peers.keras_network(config, arrays(network))

    def answer(x: Any) -> Any:
        if normalising:
            mean = tf.reduce_mean(x, axis=1, keepdims=True)
            power = tf.reduce_mean(tf.square(x - mean), axis=1, keepdims=True)
            power = tf.maximum(power, peers.SILENCE_RMS**2)
            steps = tf.round(tf.math.log(power) * peers.STEPS_A_NEPER)
            level = tf.exp(steps / (2 * peers.STEPS_A_NEPER))
            step = peers.OFFSET_STEP * level
            x = (x - tf.round(mean / step) * step) / level
        return model(x, training=False)

    shape = tf.TensorSpec((None, config.segment_length), tf.float32)
    graph = tf.function(answer, input_signature=[shape])
    xla = tf.function(answer, jit_compile=True)
    return {
        "tf.function": lambda segments: graph(tf.constant(segments)).numpy(),
        "tf.function and XLA": lambda segments: xla(tf.constant(segments)).numpy(),
    }


def onnx_runtime(path: Path, threads: int) -> Ways:
    """With all its optimisations; all segments at once, and in parts that stay in a cache."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(segments: Array, most: int) -> Array:
        parts = range(0, len(segments), most)
        found = [session.run(None, {"segments": segments[i : i + most]})[0] for i in parts]
        return np.concatenate(found)

    sizes = {"one by one": 1, "four at once": 4, "sixteen at once": 16, "all at once": sys.maxsize}
    return {way: lambda x, most=most: run(x, most) for way, most in sizes.items()}


def openvino(path: Path, threads: int) -> Ways:
    """One request for all segments, and as many requests at once as it thinks best."""
    return {
        "latency": _openvino_runner(path, threads, hint="LATENCY"),
        "throughput": _openvino_runner(path, threads, hint="THROUGHPUT"),
    }


def _openvino_runner(path: Path, threads: int, *, hint: str) -> Runner:
    """Compiled for each number of segments, in float32, which is what the others compute in."""
    from openvino import Core

    core = Core()
    settings = {
        "PERFORMANCE_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }

    @cache
    def compiled_for(n_segments: int) -> Any:
        model = core.read_model(path)
        model.reshape([n_segments, SEGMENT_LENGTH])
        return core.compile_model(model, "CPU", settings)

    wanted = compiled_for(1).get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    n_requests = wanted if hint == "THROUGHPUT" else 1

    @cache
    def request(index: int, n_segments: int) -> Any:
        return compiled_for(n_segments).create_infer_request()

    def run(segments: Array) -> Array:
        parts = np.array_split(segments, min(n_requests, len(segments)))
        requests = [request(i, len(part)) for i, part in enumerate(parts)]
        for one, part in zip(requests, parts, strict=True):
            one.start_async({0: part}, share_inputs=True)
        for one in requests:
            one.wait()
        return np.concatenate([one.get_output_tensor(0).data for one in requests])

    return run
