"""The native kernels behind numpy arrays: training passes and inference of the network's trunk.

The trunk is every block (convolution, normalisation, ReLU) and the mean over time. The kernels
live in ``native/`` and are built at installation; :func:`available` says whether they were.
"""

import importlib
import math
import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_native: Any
try:
    _native = importlib.import_module("stapes._native")
except ImportError:  # there was no compiler at installation
    _native = None

Array = NDArray[np.float32]

STRIDES = (1, 2, 4, 8, 16)
"""Strides that the kernels know."""

SPARE_SCRATCH = 4
"""Scratch memories kept for later passes."""


def available() -> bool:
    """Whether the kernels were built for this Python and processor."""
    return _native is not None


def extension() -> Any:
    """The compiled module; None where it was not built."""
    return _native


def kernels() -> str:
    """The build that this processor runs: "avx512", "avx2", "baseline", or "none"."""
    return str(_native.kernels) if available() else "none"


def warn_missing(substitute: str) -> None:
    """Say, once, that something slower takes the place of the kernels."""
    warnings.warn(
        f"the native kernels are not installed: {substitute} takes over, several times slower "
        "(install stapes where a C++ compiler is present)",
        RuntimeWarning,
        stacklevel=3,
    )


@dataclass(frozen=True)
class Blocks:
    """Sizes of all blocks, and how their parameters lie in one flat array, for training.

    First come the weights of every block, then every gamma (normalisation's factors), then every
    beta (its offsets).

    Attributes:
        channels: filters of every block.
        kernel_sizes: taps of every filter.
        strides: one of ``STRIDES`` a block.
    """

    channels: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the parts of the flat array: [C_out, C_in, K] and twice [C_out] a block."""
        sizes = zip(self.channels, (1, *self.channels), self.kernel_sizes, strict=False)
        vectors: list[tuple[int, ...]] = [(c,) for c in self.channels]
        return [*sizes, *vectors, *vectors]

    @cached_property
    def n_parameters(self) -> int:
        """Length of the flat array."""
        return sum(map(math.prod, self.shapes))

    def key(self, batch: int, length: int) -> tuple[Any, ...]:
        """What scratch memory depends on."""
        return batch, length, self.channels, self.kernel_sizes, self.strides


@dataclass(slots=True)
class Scratch:
    """Memory that passes borrow and give back, for fresh pages are slow; copies are empty."""

    spare: list[tuple[Any, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def borrow(self, key: tuple[Any, ...]) -> Any:
        """A trainer of this shape, a spare one if there is one."""
        with self.lock:
            for i, (spare_key, trainer) in enumerate(self.spare):
                if spare_key == key:
                    del self.spare[i]
                    return trainer
        return _native.Trainer(*key)

    def give_back(self, key: tuple[Any, ...], trainer: Any) -> None:
        """Keep a trainer for the next pass, and the latest few at most."""
        with self.lock:
            self.spare = [*self.spare, (key, trainer)][-SPARE_SCRATCH:]

    def __reduce__(self) -> tuple[type["Scratch"], tuple[()]]:
        """Nothing worth copying."""
        return Scratch, ()


@dataclass(slots=True)
class Forward:
    """A training forward pass, kept for its one backward pass.

    Attributes:
        pooled: [B, C] mean over time of the last block's activations.
        statistics: mean and (biased) variance of every convolution's output, without its bias:
            [2, sum of channels].
        blocks: what it was a pass of.
        scratch: where the trainer goes back to.
        key: under which.
        trainer: borrowed memory; None after the backward pass.
    """

    pooled: Array
    statistics: Array
    blocks: Blocks
    scratch: Scratch
    key: tuple[Any, ...]
    trainer: Any | None


def trunk_train_forward(
    x: Array,
    parameters: Array,
    blocks: Blocks,
    *,
    epsilon: float,
    n_threads: int,
    scratch: Scratch,
) -> Forward:
    """Blocks with batch statistics, then the mean over time: [B, T] -> [B, C].

    The convolutions' biases are left out: normalisation takes them away again. The result is
    the same bit for bit at any number of threads.

    Args:
        x: [B, T] normalised segments.
        parameters: of the blocks, flat.
        blocks: how these lie.
        epsilon: added to the variance.
        n_threads: at least 1; no more than 256 are used.
        scratch: where memory is borrowed from.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if x.ndim != 2 or not blocks.channels:
        raise ValueError(f"x has shape {x.shape}, wanted [B, T], and at least one block")
    key = blocks.key(*x.shape)
    trainer = scratch.borrow(key)
    pooled = np.empty((x.shape[0], blocks.channels[-1]), np.float32)
    statistics = np.empty((2, sum(blocks.channels)), np.float32)
    trainer.forward(_plain(x), _plain(parameters), epsilon, n_threads, pooled, *statistics)
    return Forward(pooled, statistics, blocks, scratch, key, trainer)


def trunk_train_backward(forward: Forward, d_pooled: Array, *, n_threads: int, out: Array) -> None:
    """Gradient of the parameters from that of the pooled values; once a forward pass.

    Args:
        forward: the forward pass.
        d_pooled: [B, C].
        n_threads: at least 1; no more than 256 are used.
        out: flat, where the gradient is written to.

    Raises:
        ValueError: a second call, or another shape.
    """
    if forward.trainer is None:
        raise ValueError("this forward pass has had its backward pass")
    forward.trainer.backward(_plain(d_pooled), n_threads, out)
    forward.scratch.give_back(forward.key, forward.trainer)
    forward.trainer = None


MOST_LENGTHS, MOST_SAMPLES = 16, 256_000
"""Segments' lengths, and samples, in the longest stretch: more would not fit into a cache."""


@dataclass(frozen=True, slots=True)
class Stretches:
    """Segments of one waveform that share frames: one every hop, all with the same gain.

    Attributes:
        starts: first sample of each stretch [S].
        counts: its segments [S].
        offsets: what is subtracted from its samples [S].
        scales: what they are multiplied by then [S].
    """

    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    offsets: Array
    scales: Array

    @classmethod
    def alone(cls, starts: NDArray[np.int64]) -> Self:
        """Segments as they are, each by itself."""
        zeros = np.zeros(len(starts), np.float32)
        return cls(starts, np.ones(len(starts), np.int64), zeros, zeros + 1)


MOST_LISTENERS = 4
"""Hops and numbers of threads for which a network keeps memory."""


class Listener:
    """Blocks with normalisation folded in, then the mean over time, for one network.

    Copies and pickles are made of the weights alone.
    """

    def __init__(
        self,
        kernels: Sequence[Array],
        biases: Sequence[Array],
        *,
        strides: Sequence[int],
        segment_length: int,
    ) -> None:
        """Note the weights.

        Args:
            kernels: one [C_out, C_in, K] a block.
            biases: one [C_out] a block.
            strides: one of ``STRIDES`` a block.
            segment_length: samples.
        """
        self._weights = tuple(map(_plain, kernels)), tuple(map(_plain, biases))
        self._strides, self._segment_length = list(strides), segment_length
        self._listeners: dict[tuple[int, int, int], Any] = {}
        self._shares: bool | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """The weights; memory is found anew."""
        make = partial(Listener, strides=self._strides, segment_length=self._segment_length)
        return make, self._weights

    def most(self, hop_length: int) -> int:
        """How many segments one stretch may have; 1 where segments share nothing at that hop."""
        if hop_length % math.prod(self._strides) or hop_length >= self._segment_length:
            return 1
        if not self._share():
            return 1
        length = self._segment_length
        longest = max(min(MOST_LENGTHS * length, MOST_SAMPLES), 2 * length)
        return 1 + (longest - length) // hop_length

    def pooled(
        self,
        waveform: Array,
        stretches: Stretches,
        *,
        hop_length: int,
        n_threads: int,
        frames: Array | None = None,
    ) -> Array:
        """The pooled values of every segment of every stretch: [T] -> [N, C].

        Args:
            waveform: [T].
            stretches: none with more segments than :meth:`most`.
            hop_length: samples between the segments of a stretch.
            n_threads: at least 1; no more than 256 are used.
            frames: [N, T_last, C] to write the last block's activations to, where every stretch
                has one segment.

        Raises:
            ValueError: a stretch outside of the waveform, or shapes that do not belong together.
            TypeError: ``frames`` that is not contiguous float32.
        """
        pooled = np.empty((int(stretches.counts.sum()), len(self._weights[1][-1])), np.float32)
        listener = self._at(hop_length if self.most(hop_length) > 1 else 0, n_threads)
        listener.run(
            _plain(waveform),
            stretches.starts.tolist(),
            stretches.counts.tolist(),
            stretches.offsets.tolist(),
            stretches.scales.tolist(),
            pooled,
            frames,
        )
        return pooled

    def _share(self) -> bool:
        if self._shares is None:
            self._shares = bool(self._at(0, 1).shares())
        return self._shares

    def _at(self, hop_length: int, n_threads: int) -> Any:
        """Memory for a hop (0 where every segment stands alone) and a number of threads."""
        key = hop_length, n_threads, os.getpid()  # a fork may find its parent's at work, for ever
        listener = self._listeners.get(key)
        if listener is None:
            for old in list(self._listeners)[: 1 - MOST_LISTENERS]:
                self._listeners.pop(old, None)
            kernels, biases = self._weights
            listener = self._listeners[key] = _native.Listener(
                self._segment_length,
                [len(k) for k in kernels],
                [k.shape[2] for k in kernels],
                self._strides,
                np.concatenate([a.ravel() for a in (*kernels, *biases)]),
                hop_length,
                self.most(hop_length) if hop_length else 1,
                n_threads,
            )
        return listener


def describe(
    blocks: Array, *, n_threads: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], Array]:
    """Mean, sum of squares about it and highest magnitude of each block: [M, T] -> three [M].

    Args:
        blocks: [M, T].
        n_threads: at most so many, where there is enough to do.
    """
    n_blocks = len(blocks)
    found = np.empty(n_blocks), np.empty(n_blocks), np.empty(n_blocks, np.float32)
    if available():
        _native.describe(_plain(blocks), n_threads, *found)
        return found
    means = blocks.mean(axis=1, dtype=np.float32)
    centred = blocks - means[:, None]
    squares = np.einsum("mt,mt->m", centred, centred)
    peaks = np.maximum(blocks.max(axis=1), -blocks.min(axis=1))
    return means.astype(np.float64), squares.astype(np.float64), peaks


def _plain(array: Array) -> Array:
    return np.ascontiguousarray(array, np.float32)
