"""What a network says of labelled clips it was not trained on, and how good that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes import evaluation
from stapes.clips import Clip
from stapes.config import ModelConfig
from stapes.engine import FoldedNetwork, probabilities
from stapes.inference import HOPS_PER_SEGMENT, SegmentOutputs, Vote, segment_outputs
from stapes.segments import Waveform, passes_gate


@dataclass(frozen=True, slots=True)
class Measured:
    """What a network said of clips it was not trained on.

    Attributes:
        config: its numbers and classes.
        clips: the clips [N].
        targets: their class indices [N].
        outputs: what it said of the segments of each [N].
    """

    config: ModelConfig
    clips: tuple[Clip, ...]
    targets: NDArray[np.int64]
    outputs: tuple[SegmentOutputs, ...]

    def clip_probabilities(self, vote: Vote = "mean") -> NDArray[np.float32]:
        """The vote of every clip: [N, n_classes]."""
        return np.stack([output.vote(vote, gate=self.config.gate) for output in self.outputs])

    def segment_probabilities(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Targets [M] and probabilities [M, n_classes] of all segments that pass the gate."""
        kept = [passes_gate(o.peaks, gate=self.config.gate) for o in self.outputs]
        logits = np.concatenate([o.logits[k] for o, k in zip(self.outputs, kept, strict=True)])
        return np.repeat(self.targets, [k.sum() for k in kept]), probabilities(logits)


def measure(
    network: FoldedNetwork, clips: Sequence[Clip], waveforms: Sequence[Waveform]
) -> Measured:
    """Run a network over labelled clips, at the hop that prediction uses."""
    config = network.config
    hop_length = config.segment_length // HOPS_PER_SEGMENT
    outputs = tuple(segment_outputs(network, [w], hop_length=hop_length) for w in waveforms)
    return Measured(config, tuple(clips), targets_of(clips, config.classes), outputs)


def summarise(measured: Sequence[Measured], *, n_repeats: int = 1) -> dict[str, Any]:
    """Metrics of clips and segments over one or more measurements of the same classes.

    Args:
        measured: in all, every clip must occur ``n_repeats`` times (once a seed).
        n_repeats: the counts ``n`` are of distinct clips and segments; confusion counts all.
    """
    classes = measured[0].config.classes
    targets = np.concatenate([m.targets for m in measured])
    shares = np.concatenate([m.clip_probabilities() for m in measured])
    majority = np.concatenate([m.clip_probabilities("majority") for m in measured])
    parts = [m.segment_probabilities() for m in measured]
    clips = evaluation.summarise(targets, shares, classes)
    right = shares.argmax(axis=1) == targets
    sources = [clip.source for m in measured for clip in m.clips]
    clips["interval"] = list(evaluation.interval(right, sources))
    clips["majority_accuracy"] = evaluation.accuracy(targets, majority.argmax(axis=1))
    segments = evaluation.summarise(
        np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), classes
    )
    clips["n"] //= n_repeats
    segments["n"] //= n_repeats
    return {
        "parameters": measured[0].config.n_parameters,
        "classes": list(classes),
        "segments": segments,
        "clips": clips,
    }


def targets_of(clips: Sequence[Clip], classes: Sequence[str]) -> NDArray[np.int64]:
    """Class index of every clip: [N]."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[clip.label] for clip in clips])
