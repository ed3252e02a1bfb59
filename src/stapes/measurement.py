"""What a network says of labelled clips it was not trained on, and how good that is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stapes import evaluation
from stapes.clips import Clip
from stapes.config import ModelConfig
from stapes.engine import FoldedNetwork, probabilities
from stapes.inference import SegmentOutputs, Vote, segment_outputs
from stapes.progress import Progress, silent
from stapes.segments import Waveform, passes_gate


@dataclass(frozen=True, slots=True)
class Measured:
    """What networks said of clips they were not trained on.

    A clip that networks of several seeds judged occurs once for each.

    Attributes:
        config: the networks' numbers and classes.
        clips: the clips [N].
        targets: their class indices [N]; -1 for what is none of the classes.
        outputs: what was said of the segments of each [N].
    """

    config: ModelConfig
    clips: tuple[Clip, ...]
    targets: NDArray[np.int64]
    outputs: tuple[SegmentOutputs, ...]

    @classmethod
    def join(cls, measured: "Sequence[Measured]") -> Self:
        """All clips of several measurements of the same classes, one after the other."""
        return cls(
            measured[0].config,
            tuple(clip for m in measured for clip in m.clips),
            np.concatenate([m.targets for m in measured]),
            tuple(output for m in measured for output in m.outputs),
        )

    def pick(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """Some of the clips, by a mask [N] or by their rows."""
        chosen = np.arange(len(self.clips))[rows].tolist()
        return replace(
            self,
            clips=tuple(self.clips[i] for i in chosen),
            targets=self.targets[chosen],
            outputs=tuple(self.outputs[i] for i in chosen),
        )

    @property
    def known(self) -> Self:
        """The clips that are of one of the classes."""
        return self.pick(self.targets >= 0)

    @property
    def foreign(self) -> Self:
        """The clips that are none of the classes."""
        return self.pick(self.targets < 0)

    @property
    def sources(self) -> list[str]:
        """The source of each clip [N]."""
        return [clip.source for clip in self.clips]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the vote of each clip is its class [N]."""
        called = self.clip_probabilities().argmax(axis=1)
        right: NDArray[np.bool_] = called == self.targets
        return right

    def clip_probabilities(self, vote: Vote = "mean") -> NDArray[np.float32]:
        """The vote of every clip: [N, n_classes]."""
        votes = [output.vote(vote, gate=self.config.gate) for output in self.outputs]
        return np.array(votes, np.float32).reshape(len(votes), len(self.config.classes))

    def segment_probabilities(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Clips [M] and probabilities [M, n_classes] of all segments that pass the gate."""
        kept = [passes_gate(o.peaks, gate=self.config.gate) for o in self.outputs]
        heard = [o.logits[k] for o, k in zip(self.outputs, kept, strict=True)]
        logits = np.concatenate([np.zeros((0, self.config.n_outputs), np.float32), *heard])
        return np.repeat(np.arange(len(kept)), [k.sum() for k in kept]), probabilities(logits)


def measure(
    network: FoldedNetwork,
    clips: Sequence[Clip],
    waveforms: Sequence[Waveform],
    *,
    progress: Progress = silent,
) -> Measured:
    """Run a network over labelled clips, at the hop that prediction uses."""
    config = network.config
    outputs = []
    for waveform in waveforms:
        outputs.append(segment_outputs(network, [waveform], hop_length=config.hop_length))
        progress("measuring", len(outputs), len(waveforms), "")
    return Measured(config, tuple(clips), targets_of(clips, config.classes), tuple(outputs))


def measure_foreign(
    network: FoldedNetwork, clips: Sequence[Clip], waveforms: Sequence[Waveform]
) -> Measured:
    """Run a network over clips that are none of its classes, whatever their labels say."""
    measured = measure(network, clips, waveforms)
    return replace(measured, targets=np.full(len(measured.targets), -1))


def summarise(measured: Measured, *, n_repeats: int = 1) -> dict[str, Any]:
    """How good clips and segments are, with intervals over sources.

    Args:
        measured: every clip must occur ``n_repeats`` times (once a seed).
        n_repeats: the counts ``n`` are of distinct clips and segments; confusion counts all.
    """
    classes, targets, sources = measured.config.classes, measured.targets, measured.sources
    majority = measured.clip_probabilities("majority").argmax(axis=1)
    clips = _part(targets, measured.clip_probabilities(), sources, classes)
    clips["majority_accuracy"] = evaluation.accuracy(targets, majority)
    clips["n_sources"] = len(set(sources))
    owners, shares = measured.segment_probabilities()
    segments = _part(targets[owners], shares, [sources[i] for i in owners], classes)
    clips["n"] //= n_repeats
    segments["n"] //= n_repeats
    return {
        "parameters": measured.config.n_parameters,
        "classes": list(classes),
        "segments": segments,
        "clips": clips,
    }


def _part(
    targets: NDArray[np.int64],
    shares: NDArray[np.float32],
    sources: Sequence[str],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Metrics of clips or of segments, with the interval of the accuracy."""
    right = shares.argmax(axis=1) == targets
    interval = list(evaluation.interval(right, sources))
    return evaluation.summarise(targets, shares, classes) | {"interval": interval}


def targets_of(clips: Sequence[Clip], classes: Sequence[str]) -> NDArray[np.int64]:
    """Class index of every clip, -1 for a label that is none of the classes: [N]."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(clip.label, -1) for clip in clips], dtype=np.int64)
