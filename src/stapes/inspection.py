"""What the network hears, as arrays: filters, responses, activations, contributions.

The answer can be taken apart exactly, because behind the last block only sums remain. With
a_t the activations of frame t (of T), w and b the head's weights and bias,

    logit = b + w . mean_t(a_t) = b + sum_c w_c pooled_c = b + sum_t (w . a_t) / T:

one sum over filters and one over moments, both ending at the same logit. Nothing is drawn here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stapes.calibration import scale
from stapes.config import ModelConfig, same_padding
from stapes.engine import BATCH, FoldedNetwork, probabilities
from stapes.levels import levels
from stapes.segments import Waveform, cut, pad, passes_gate, segment_starts

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

N_FFT = 512
"""Points of the frequency responses; more than any kernel has taps."""

FLOOR_DB = -80.0
"""Gains below this are shown as this: a filter can have an exact zero."""


@dataclass(frozen=True, slots=True)
class FirstLayer:
    """The filters that meet the waveform itself.

    Attributes:
        kernels: as used, with normalisation folded in [C, K].
        raw_kernels: as learned, before normalisation [C, K]; None if not given.
        tap_ms: time of each tap against the middle of the kernel [K].
        frequencies_hz: from 0 to half the sample rate [F].
        responses_db: gain of ``kernels`` at each frequency [C, F].
    """

    kernels: Floats
    raw_kernels: Floats | None
    tap_ms: Doubles
    frequencies_hz: Doubles
    responses_db: Doubles


@dataclass(frozen=True, slots=True)
class SegmentExplanation:
    """One segment on its way through the network; R rows of the head (see :func:`head`).

    Attributes:
        start_seconds: where in the clip it begins.
        input: the segment as the network gets it, normalised [T_0].
        activations: after every block [T_i, C].
        times_seconds: centre of each sample or frame in the clip: of the input, then of every
            block [T_i].
        pooled: mean over time of the last activations [C].
        filter_contributions: head weight times pooled value [R, C].
        frame_contributions: (w . a_t) / T of every final frame [R, T].
        logits: head bias + the sum of either kind of contributions [R].
        probabilities: [n_classes].
    """

    start_seconds: float
    input: Floats
    activations: tuple[Floats, ...]
    times_seconds: tuple[Doubles, ...]
    pooled: Doubles
    filter_contributions: Doubles
    frame_contributions: Doubles
    logits: Doubles
    probabilities: Floats


@dataclass(frozen=True, slots=True)
class Timeline:
    """When the network heard what, over the segments that vote.

    Every moment m is seen by several segments, each with one of its final frames. With N
    voting segments of T frames and n_m frames at moment m,

        evidence_m = b + mean over the n_m frames of w . a,    share_m = n_m / (N T),
        mean logit of the segments = sum_m share_m evidence_m  (the shares sum to 1).

    Attributes:
        times_seconds: centre of each moment in the clip [M].
        step_seconds: from one moment to the next.
        evidence: the logit if everything sounded like this moment [R, M]; nan where no
            segment votes.
        shares: weight of each moment in the mean logit [M].
    """

    times_seconds: Doubles
    step_seconds: float
    evidence: Doubles
    shares: Doubles


@dataclass(frozen=True, slots=True)
class ClipExplanation:
    """Everything there is to see about one answer; R rows of the head (see :func:`head`).

    Attributes:
        config: of the network.
        waveform: the clip [T], never shorter than a segment.
        n_samples: length of the clip before padding.
        label: the most probable class.
        probability: of that class.
        probabilities: mean over the voting segments, calibrated [n_classes].
        row: row of the head that speaks of the label: 0 for two classes.
        logits: mean over the voting segments [R].
        starts: first sample of each segment [N].
        voting: whether it passes the gate [N].
        segment_probabilities: as trained [N, n_classes].
        timeline: when the network heard what.
        segment: the voting segment that speaks loudest for the label.
        head_weight: [R, C].
        head_bias: [R].
        first_layer: the filters that meet the waveform.
    """

    config: ModelConfig
    waveform: Waveform
    n_samples: int
    label: str
    probability: float
    probabilities: Floats
    row: int
    logits: Doubles
    starts: NDArray[np.int64]
    voting: NDArray[np.bool_]
    segment_probabilities: Floats
    timeline: Timeline
    segment: SegmentExplanation
    head_weight: Doubles
    head_bias: Doubles
    first_layer: FirstLayer


def explain_waveform(
    network: FoldedNetwork,
    waveform: Waveform,
    *,
    hop_length: int | None = None,
    clip_temperature: float = 1.0,
    raw_kernels: Floats | None = None,
) -> ClipExplanation:
    """Take the network's answer about a clip apart.

    Args:
        network: the folded network.
        waveform: [T] at the network's sample rate.
        hop_length: samples between segment starts; by default the final frames' spacing, so
            that the frames of neighbouring segments fall on the same moments (those of the
            last segment near them).
        clip_temperature: of the model's calibration, so that the answer is that of prediction.
        raw_kernels: the first layer's kernels before normalisation [C, 1, K], to be shown too.
    """
    config = network.config
    length = config.segment_length
    n_samples = len(waveform)
    waveform = pad(np.asarray(waveform, np.float32), segment_length=length)
    hop_length = hop_length or config.dense_hop_length
    starts = segment_starts(len(waveform), segment_length=length, hop_length=hop_length)
    contributions, highest = _run(network, waveform, starts)
    weight, bias = head(network)
    logits = contributions.sum(axis=2) + bias  # [N, R]
    shares = probabilities(logits.astype(np.float32))  # [N, n_classes]
    voting = passes_gate(highest, gate=config.gate)
    voted = scale(shares[voting].mean(axis=0)[None], clip_temperature)[0]
    target = int(voted.argmax())
    loudest = int(np.where(voting, shares[:, target], -1.0).argmax())
    return ClipExplanation(
        config=config,
        waveform=waveform,
        n_samples=n_samples,
        label=config.classes[target],
        probability=float(voted[target]),
        probabilities=voted,
        row=target if len(weight) > 1 else 0,
        logits=logits[voting].mean(axis=0),
        starts=starts,
        voting=voting,
        segment_probabilities=shares,
        timeline=timeline(
            config, starts[voting], contributions[voting], bias=bias, last_start=int(starts[-1])
        ),
        segment=explain_segment(network, waveform, start=int(starts[loudest])),
        head_weight=weight,
        head_bias=bias,
        first_layer=first_layer(network, raw_kernels=raw_kernels),
    )


def head(network: FoldedNetwork) -> tuple[Doubles, Doubles]:
    """Weights [R, C] and biases [R] of the evidence for each class.

    Two classes have one logistic unit, R = 1: positive speaks for the second class. More have
    one row a class, less the mean of all rows: softmax does not feel what is added to every
    logit, and what remains speaks for a class or against it, compared with the average class.
    """
    weight = network.head_weight.astype(np.float64)
    bias = network.head_bias.astype(np.float64)
    if len(bias) > 1:
        return weight - weight.mean(axis=0), bias - bias.mean()
    return weight, bias


def explain_segment(
    network: FoldedNetwork, waveform: Waveform, *, start: int
) -> SegmentExplanation:
    """Follow one segment of a waveform [T] through the network.

    Args:
        network: the folded network.
        waveform: [T], at least ``start`` and one segment long.
        start: first sample of the segment.
    """
    config = network.config
    segment = network.prepare(waveform[None, start : start + config.segment_length])
    activations = tuple(x[0] for x in network.activations(segment))
    weight, bias = head(network)
    last = activations[-1].astype(np.float64)  # [T, C]
    frame_contributions = weight @ last.T / len(last)
    logits = frame_contributions.sum(axis=1) + bias
    centres = frame_centres(config)
    return SegmentExplanation(
        start_seconds=start / config.sample_rate,
        input=segment[0],
        activations=activations,
        times_seconds=tuple((start + c) / config.sample_rate for c in centres),
        pooled=last.mean(axis=0),
        filter_contributions=weight * last.mean(axis=0),
        frame_contributions=frame_contributions,
        logits=logits,
        probabilities=probabilities(logits[None].astype(np.float32))[0],
    )


def first_layer(network: FoldedNetwork, *, raw_kernels: Floats | None = None) -> FirstLayer:
    """Kernels of the first layer and their gain over frequency, |sum_k h_k e^(-iwk)| in dB."""
    kernels = network.kernels[0][:, 0].T  # [C, K]
    gain = np.abs(np.fft.rfft(kernels.astype(np.float64), n=N_FFT))
    n_taps = kernels.shape[1]
    return FirstLayer(
        kernels=kernels,
        raw_kernels=None if raw_kernels is None else raw_kernels[:, 0],
        tap_ms=(np.arange(n_taps) - (n_taps - 1) / 2) * 1000 / network.config.sample_rate,
        frequencies_hz=np.linspace(0, network.config.sample_rate / 2, N_FFT // 2 + 1),
        responses_db=20 * np.log10(np.maximum(gain, 10 ** (FLOOR_DB / 20))),
    )


def frame_centres(config: ModelConfig) -> tuple[Doubles, ...]:
    """Centre of what each frame sees, in samples of the segment: of the input, then each block.

    Frame t of block i + 1 sees the frames t s - p_i, ..., t s - p_i + K - 1 of block i, so

        c_i(t) = d_i t + o_i,    o_0 = 0,    o_(i+1) = o_i + d_i ((K - 1) / 2 - p_i)

    with d_i the product of the strides so far, kernel size K and p_i zeros in front of block
    i + 1's input.

    >>> [float(c[0]) for c in frame_centres(ModelConfig(("cat", "dog")))]
    [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 127.0, 127.0, 127.0, 639.0]
    """
    offset, spacing = 0.0, 1
    centres = [np.arange(config.segment_length, dtype=np.float64)]
    blocks = zip(config.layer_lengths, config.kernel_sizes, config.strides, strict=False)
    for (length, kernel_size, stride), after in zip(blocks, config.layer_lengths[1:], strict=True):
        before, _ = same_padding(length, kernel_size=kernel_size, stride=stride)
        offset += spacing * ((kernel_size - 1) / 2 - before)
        spacing *= stride
        centres.append(offset + spacing * np.arange(after, dtype=np.float64))
    return tuple(centres)


def timeline(
    config: ModelConfig,
    starts: NDArray[np.int64],
    contributions: Doubles,
    *,
    bias: Doubles,
    last_start: int,
) -> Timeline:
    """Lay the frames of overlapping segments on one grid of moments; see :class:`Timeline`.

    A segment that starts between two moments, as the last one may, goes to the nearest.

    Args:
        config: of the network.
        starts: first sample of each voting segment [N].
        contributions: (w . a_t) / T of its frames [N, R, T].
        bias: of the head [R].
        last_start: first sample of the clip's last segment, whether it votes or not.
    """
    step = config.total_stride
    centres = frame_centres(config)[-1]  # [T]
    n_segments, n_rows, n_frames = contributions.shape
    *first, last = [(2 * start + step) // (2 * step) for start in (*starts.tolist(), last_start)]
    moments = np.add.outer(first, np.arange(n_frames)).ravel()
    n_moments = last + n_frames
    counts = np.bincount(moments, minlength=n_moments)
    sums = [
        np.bincount(moments, weights=contributions[:, r].ravel(), minlength=n_moments)
        for r in range(n_rows)
    ]
    with np.errstate(invalid="ignore"):
        mean = np.stack(sums) * n_frames / counts
    return Timeline(
        times_seconds=(centres[0] + step * np.arange(len(counts))) / config.sample_rate,
        step_seconds=step / config.sample_rate,
        evidence=bias[:, None] + mean,
        shares=counts / (n_segments * n_frames),
    )


def envelope(waveform: Waveform, *, n_columns: int) -> tuple[Floats, Floats]:
    """Lowest and highest sample of each of ``n_columns`` equal stretches: [T] -> [n], [n]."""
    n_columns = min(n_columns, len(waveform))
    edges = np.linspace(0, len(waveform), n_columns, endpoint=False).astype(np.int64)
    return np.minimum.reduceat(waveform, edges), np.maximum.reduceat(waveform, edges)


def strongest_columns(activations: Floats, *, n_columns: int) -> tuple[Floats, int]:
    """Activations short enough to draw, keeping what is strong: [T, C] -> [ceil(T / g), C].

    Returns:
        The maximum over groups of g frames, and the smallest g that leaves at most
        ``n_columns``.
    """
    group = -(-len(activations) // n_columns)
    edges = np.arange(0, len(activations), group)
    return np.maximum.reduceat(activations, edges, axis=0), group


def _run(
    network: FoldedNetwork, waveform: Waveform, starts: NDArray[np.int64]
) -> tuple[Doubles, Floats]:
    """Frame contributions [N, R, T] and peaks [N] of all segments, a few at a time."""
    (weight, _), length = head(network), network.config.segment_length
    contributions, highest = [], []
    for first in range(0, len(starts), BATCH):
        chosen = starts[first : first + BATCH]
        segments = cut(waveform, chosen, segment_length=length)
        frames = network.final_frames(network.prepare(segments)).astype(np.float64)  # [B, T, C]
        contributions.append(np.swapaxes(frames @ weight.T, 1, 2) / frames.shape[1])
        highest.append(levels(waveform, chosen, segment_length=length).peaks)
    return np.concatenate(contributions), np.concatenate(highest)
