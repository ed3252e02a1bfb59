"""The network without a deep-learning framework: normalisation folded into the convolutions.

The native kernels run it where they are installed; NumPy is the reference, and takes over
where they are not.

Activations are kept time-major, [B, T, C], so that one block is a single matrix product of
the K neighbouring frames with the kernel.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stapes import native
from stapes.config import ModelConfig, same_padding
from stapes.levels import Levels, levels, stretches
from stapes.segments import Waveform, cut
from stapes.threads import thread_count

Array = NDArray[np.float32]

NORMALISATION_EPSILON = 1e-3
"""Added to the variance in batch normalisation; Keras' default, which the notebook used."""

BATCH = 64
"""Segments that go through the network together where each has memory of its own."""


@dataclass(frozen=True, slots=True)
class FoldedNetwork:
    """Convolution + ReLU blocks with batch normalisation folded in, mean over time, one head.

    Attributes:
        config: the network's numbers.
        kernels: one [K, C_in, C_out] a block.
        biases: one [C_out] a block.
        head_weight: [n_outputs, C].
        head_bias: [n_outputs].
        none_weight: of the unit for what is none of the classes, if it was trained with one [1, C].
        none_bias: the same [1].
    """

    config: ModelConfig
    kernels: tuple[Array, ...]
    biases: tuple[Array, ...]
    head_weight: Array
    head_bias: Array
    none_weight: Array | None = None
    none_bias: Array | None = None
    _listener: native.Listener | None = field(init=False, default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Hand the weights to the kernels, where there are any."""
        if native.available() and set(self.config.strides) <= set(native.STRIDES):
            listener = native.Listener(
                [kernel.transpose(2, 1, 0) for kernel in self.kernels],
                self.biases,
                strides=self.config.strides,
                segment_length=self.config.segment_length,
            )
            object.__setattr__(self, "_listener", listener)

    @classmethod
    def fold(cls, config: ModelConfig, tensors: Mapping[str, Array]) -> Self:
        """Fold normalisation into the convolutions: y = g (Wx + b - m) / sqrt(v + e) + h.

        Args:
            config: the network's numbers.
            tensors: the state of :class:`stapes.model.Network` as arrays.
        """
        kernels, biases = [], []
        for i in range(config.n_layers):
            scale = tensors[f"norms.{i}.weight"] / np.sqrt(
                tensors[f"norms.{i}.running_var"] + np.float32(NORMALISATION_EPSILON)
            )
            kernels.append(tensors[f"convs.{i}.weight"].transpose(2, 1, 0) * scale)
            shift = tensors[f"convs.{i}.bias"] - tensors[f"norms.{i}.running_mean"]
            biases.append(shift * scale + tensors[f"norms.{i}.bias"])
        head = tensors["head.weight"], tensors["head.bias"]
        none = tensors.get("none.weight"), tensors.get("none.bias")
        return cls(config, tuple(kernels), tuple(biases), *head, *none)

    def prepare(self, segments: Array) -> Array:
        """Raw segments as the network wants them: [B, T] -> [B, T]."""
        length = self.config.segment_length
        segments = _as_batch(segments, length)
        if not len(segments):
            return segments
        starts = length * np.arange(len(segments))
        return self._levels(segments.ravel(), starts).apply(segments)

    def _levels(self, waveform: Waveform, starts: NDArray[np.int64]) -> Levels:
        found = levels(waveform, starts, segment_length=self.config.segment_length)
        return found if self.config.normalise else found.ignored()

    def blocks(self, segments: Array) -> Iterator[Array]:
        """Activations after each block in turn: [B, T] -> [B, T_1, C], [B, T_2, C], ..."""
        x = segments[..., None]
        for kernel, bias, stride in zip(
            self.kernels, self.biases, self.config.strides, strict=True
        ):
            x = _block(x, kernel, bias, stride=stride)
            yield x

    def activations(self, segments: Array) -> list[Array]:
        """Activations after every block: [B, T] -> list of [B, T_i, C]."""
        return list(self.blocks(_as_batch(segments, self.config.segment_length)))

    def final_frames(self, segments: Array) -> Array:
        """Activations after the last block: [B, T] -> [B, T_last, C]."""
        segments = _as_batch(segments, self.config.segment_length)
        shape = (len(segments), self.config.layer_lengths[-1], self.config.channels[-1])
        frames = np.zeros(shape, np.float32)
        if self._listener is not None and len(segments):
            self._listener.pooled(
                segments.ravel(),
                native.Stretches.alone(self.config.segment_length * np.arange(len(segments))),
                hop_length=self.config.segment_length,
                n_threads=thread_count(),
                frames=frames,
            )
            return frames
        if not native.available():
            native.warn_missing("NumPy")
        for first in range(0, len(segments), BATCH):
            *_, last = self.blocks(segments[first : first + BATCH])
            frames[first : first + BATCH] = last
        return frames

    def logits(self, segments: Array) -> Array:
        """Logits of prepared segments: [B, T] -> [B, n_outputs]."""
        return self.logits_and_none(segments)[0]

    def logits_and_none(self, segments: Array) -> tuple[Array, Array]:
        """Logits of prepared segments [B, n_outputs] and that of "none of the classes" [B].

        The latter is minus infinity where the network has no unit for it.
        """
        return self._head(self.final_frames(segments).mean(axis=1))

    def listen(
        self, waveform: Waveform, starts: NDArray[np.int64], *, hop_length: int
    ) -> tuple[Array, Array, Array]:
        """Logits, that of "none", and the peaks of raw segments of one waveform.

        The answers are those that each segment would get if it were cut out, up to rounding;
        but what overlapping segments have in common is computed once.

        Args:
            waveform: [T].
            starts: first samples of the segments [N], one every hop, all inside.
            hop_length: samples between the starts.

        Returns:
            [N, n_outputs], [N] and [N].
        """
        most = self._listener.most(hop_length) if self._listener is not None else 1
        at_once = len(starts) if most > 1 else BATCH  # alone, segments take memory of their own
        parts = [
            self._listen(waveform, starts[i : i + at_once], hop_length=hop_length, most=most)
            for i in range(0, len(starts), at_once)
        ]
        logits, none, peaks = map(np.concatenate, zip(*parts, strict=True))
        return logits, none, peaks

    def _listen(
        self, waveform: Waveform, starts: NDArray[np.int64], *, hop_length: int, most: int
    ) -> tuple[Array, Array, Array]:
        given, length = self._levels(waveform, starts), self.config.segment_length
        if self._listener is None:
            segments = given.apply(cut(waveform, starts, segment_length=length))
            return (*self.logits_and_none(segments), given.peaks)
        n_threads = thread_count()
        each = -(-len(starts) // n_threads)
        shared, places = stretches(
            starts,
            given,
            hop_length=hop_length,
            segment_length=length,
            most=-(-each // -(-each // most)),  # as many for every thread
        )
        pooled = self._listener.pooled(waveform, shared, hop_length=hop_length, n_threads=n_threads)
        return (*self._head(pooled[places]), given.peaks)

    def _head(self, pooled: Array) -> tuple[Array, Array]:
        """[B, C] -> [B, n_outputs], [B]."""
        logits: Array = pooled @ self.head_weight.T + self.head_bias
        if self.none_weight is None or self.none_bias is None:
            return logits, np.full(len(logits), -np.inf, np.float32)
        none: Array = pooled @ self.none_weight[0] + self.none_bias[0]
        return logits, none


def _block(x: Array, kernel: Array, bias: Array, *, stride: int) -> Array:
    """One block: [B, T, C_in] -> [B, ceil(T / stride), C_out]."""
    kernel_size, n_in, n_out = kernel.shape
    length = -(-x.shape[1] // stride)
    before, after = same_padding(x.shape[1], kernel_size=kernel_size, stride=stride)
    x = np.pad(x, ((0, 0), (before, after), (0, 0)))
    taps = [x[:, k : k + stride * (length - 1) + 1 : stride] for k in range(kernel_size)]
    columns = np.concatenate(taps, axis=2)  # [B, T', K * C_in]
    y: Array = columns @ kernel.reshape(kernel_size * n_in, n_out) + bias
    return np.maximum(y, 0.0, out=y)


def _as_batch(segments: Array, segment_length: int) -> Array:
    if segments.ndim != 2 or segments.shape[1] != segment_length:
        raise ValueError(f"segments have shape {segments.shape}, wanted [B, {segment_length}]")
    return segments.astype(np.float32, copy=False)


def probabilities(logits: Array, none: Array | None = None) -> Array:
    """Logits -> probabilities of every class in order: [B, n_outputs] -> [B, n_classes].

    One logit is the second class's (a logistic unit); several are normalised by softmax.

    Args:
        logits: [B, n_outputs].
        none: logits of "none of the classes" [B], which then takes its share: what the classes
            have together falls short of 1 by it.

    >>> probabilities(np.float32([[0.0]])).tolist()
    [[0.5, 0.5]]
    >>> probabilities(np.float32([[0.0]]), none=np.log(np.float32([2.0]))).tolist()
    [[0.25, 0.25]]
    """
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    n_classes = logits.shape[1]
    if none is not None:
        logits = np.concatenate([logits, none[:, None]], axis=1)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares[:, :n_classes]
