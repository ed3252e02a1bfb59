"""Recording -> segment probabilities -> vote -> prediction. Needs no deep-learning framework."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stapes import audio, checkpoint
from stapes.checkpoint import Model
from stapes.config import ModelConfig
from stapes.engine import FoldedNetwork, probabilities
from stapes.errors import AudioError, UsageError
from stapes.segments import Waveform, cut, normalise, pad, passes_gate, peaks, segment_starts

Vote = Literal["mean", "majority"]

HOP_SHARE = 4
"""Segments start every quarter of their length unless asked otherwise."""

DENSE_HOP_LENGTH = 1024
"""Hop of the dense timeline in samples: the stride of all blocks together."""


@dataclass(frozen=True, slots=True)
class SegmentOutputs:
    """What the network says of the segments of one recording.

    Attributes:
        starts: first sample of each [N].
        logits: [N, n_outputs].
        peaks: highest magnitude of each [N].
        n_samples: length of the recording.
    """

    starts: NDArray[np.int64]
    logits: NDArray[np.float32]
    peaks: NDArray[np.float32]
    n_samples: int

    def vote(self, method: Vote = "mean", *, gate: float) -> NDArray[np.float32]:
        """Probabilities of the whole recording from its segments that pass the gate: [n_classes].

        "mean" averages the segments' probabilities; "majority" counts the segments each class
        wins, half of a tie's vote going to the mean so that the counts decide first.
        """
        shares = probabilities(self.logits[passes_gate(self.peaks, gate=gate)])
        mean: NDArray[np.float32] = shares.mean(axis=0)
        if method == "mean":
            return mean
        wins = np.bincount(shares.argmax(axis=1), minlength=shares.shape[1])
        votes: NDArray[np.float32] = ((wins + 1e-3 * mean) / (wins.sum() + 1e-3)).astype(np.float32)
        return votes


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one recording.

    Attributes:
        path: as given; "" for a waveform.
        label: the most probable class.
        probability: of that class.
        probabilities: of every class.
        duration_seconds: of the audio that was there.
        flags: short words for what is unusual ("damaged", "short", ...).
        notes: a sentence for each.
        start_seconds: of each segment [N].
        segment_probabilities: [N, n_classes], classes in the order of ``probabilities``.
    """

    path: str
    label: str
    probability: float
    probabilities: dict[str, float]
    duration_seconds: float
    flags: tuple[str, ...]
    notes: tuple[str, ...]
    start_seconds: NDArray[np.float64]
    segment_probabilities: NDArray[np.float32]

    def as_dict(self, *, segments: bool = False) -> dict[str, Any]:
        """Plain values, ready for JSON; with ``segments`` also the timeline."""
        names = ("path", "label", "probability", "probabilities", "duration_seconds")
        values = {name: getattr(self, name) for name in names} | {"flags": list(self.flags)}
        if segments:
            values["segments"] = [
                {
                    "start_seconds": float(start),
                    "probabilities": dict(zip(self.probabilities, row.tolist(), strict=True)),
                }
                for start, row in zip(self.start_seconds, self.segment_probabilities, strict=True)
            ]
        return values


def segment_outputs(
    network: FoldedNetwork, blocks: Iterable[Waveform], *, hop_length: int
) -> SegmentOutputs:
    """Run the network over the segments of a recording that comes in blocks.

    Args:
        network: the folded network.
        blocks: consecutive pieces [T_i] of one waveform; memory is bounded by the largest.
        hop_length: samples between segment starts.
    """
    length = network.config.segment_length
    starts, logits, highest = [], [], []
    rest, offset, n_samples = np.zeros(0, np.float32), 0, 0

    def run(waveform: Waveform) -> int:
        found = segment_starts(len(waveform), segment_length=length, hop_length=hop_length)
        segments = cut(waveform, found, segment_length=length)
        starts.append(found + offset)
        logits.append(network.logits(normalise(segments)))
        highest.append(peaks(segments))
        return int(found[-1]) + hop_length

    for block in blocks:
        n_samples += len(block)
        rest = np.concatenate([rest, block])
        if len(rest) >= length:
            done = run(rest)
            rest, offset = rest[done:], offset + done
    if not starts:
        run(pad(rest, segment_length=length))
    return SegmentOutputs(
        np.concatenate(starts), np.concatenate(logits), np.concatenate(highest), n_samples
    )
