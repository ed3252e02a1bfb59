"""Recording -> segment probabilities -> vote -> prediction. Needs no deep-learning framework."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import soxr
from numpy.typing import NDArray

from stapes import audio, checkpoint
from stapes.calibration import scale
from stapes.checkpoint import Model
from stapes.config import ModelConfig, is_number
from stapes.decoding import LOUDEST, SAMPLE_RATES_HZ
from stapes.engine import FoldedNetwork, probabilities
from stapes.errors import ModelFileError, UsageError
from stapes.profile import Profiler, shifts
from stapes.segments import Waveform, pad, passes_gate

Vote = Literal["mean", "majority"]
VOTES = get_args(Vote)

BLOCK_SECONDS = 65.536
"""Recordings go through the network in pieces of this length: what segments at the border of two
have in common is computed twice."""

NONE = "none-of-these"
"""The flag of a recording that is likely of no class."""

Findings = tuple[tuple[str, ...], tuple[str, ...]]
"""Short words for what is unusual about a recording, and sentences that explain them."""

SHIPPED = Path(__file__).parent / "models"


@dataclass(frozen=True, slots=True)
class SegmentOutputs:
    """What the network says of the segments of one recording.

    Attributes:
        starts: first sample of each [N].
        logits: [N, n_outputs].
        none: logits of "none of the classes" [N], minus infinity where the network has none.
        peaks: highest magnitude of each, 0 of silence and constants [N].
        n_samples: length of the recording, or of what of it was heard so far.
    """

    starts: NDArray[np.int64]
    logits: NDArray[np.float32]
    none: NDArray[np.float32]
    peaks: NDArray[np.float32]
    n_samples: int

    @classmethod
    def nothing(cls, n_outputs: int) -> Self:
        """Of no segments at all."""
        zeros = np.zeros(0, np.float32)
        return cls(np.zeros(0, np.int64), np.zeros((0, n_outputs), np.float32), zeros, zeros, 0)

    @classmethod
    def join(cls, parts: "Sequence[SegmentOutputs]") -> Self:
        """Of one recording, from consecutive parts of it."""
        return cls(
            np.concatenate([part.starts for part in parts]),
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.none for part in parts]),
            np.concatenate([part.peaks for part in parts]),
            parts[-1].n_samples,
        )

    def vote(self, method: Vote = "mean", *, gate: float) -> NDArray[np.float32]:
        """Probabilities of the whole recording from its segments that pass the gate: [n_classes].

        "mean" averages the segments' probabilities; "majority" gives every class the share of
        the segments that it wins, a tie going to the class with the higher mean.

        Raises:
            ValueError: another method.
        """
        if method not in VOTES:
            raise ValueError(f"vote is {method!r}: give one of {', '.join(VOTES)}")
        shares = probabilities(self.logits[passes_gate(self.peaks, gate=gate)])
        mean: NDArray[np.float32] = shares.mean(axis=0)
        if method == "mean":
            return mean
        wins = np.bincount(shares.argmax(axis=1), minlength=shares.shape[1])
        votes: NDArray[np.float32] = (wins / len(shares)).astype(np.float32)
        winner = np.lexsort((mean, wins))[-1]
        if votes.argmax() != winner:  # a tie
            votes[winner] = np.nextafter(votes[winner], np.float32(1))
        return votes

    def scores(self, *, gate: float) -> NDArray[np.float32]:
        """By how much the recording is of each class and not of none: [n_classes].

        The mean over the segments that pass the gate, like the vote, but of shares that "none of
        the classes" takes its part of.
        """
        heard = passes_gate(self.peaks, gate=gate)
        shares = probabilities(self.logits[heard], self.none[heard])
        mean: NDArray[np.float32] = shares.mean(axis=0)
        return mean


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer for one recording.

    Attributes:
        path: as given; "" for a waveform.
        label: the most probable class.
        probability: of that class.
        probabilities: of every class.
        duration_seconds: of the audio that was there.
        flags: short words for what is unusual ("damaged", "short", "none-of-these", ...).
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

    @property
    def accepted(self) -> bool:
        """Whether it is likely of a class at all, and so its label worth something."""
        return NONE not in self.flags

    def as_dict(self, *, segments: bool = False) -> dict[str, Any]:
        """Plain values, ready for JSON; with ``segments`` also the timeline."""
        names = ("path", "label", "probability", "probabilities", "duration_seconds")
        values = {name: getattr(self, name) for name in names}
        values |= {"flags": list(self.flags), "notes": list(self.notes)}
        if segments:
            values["segments"] = [
                {
                    "start_seconds": float(start),
                    "probabilities": dict(zip(self.probabilities, row.tolist(), strict=True)),
                }
                for start, row in zip(self.start_seconds, self.segment_probabilities, strict=True)
            ]
        return values


class SegmentStream:
    """A network that listens to one recording, block by block: blocks in, answers out.

    What is kept between blocks is at most a segment, however long the recording is.
    """

    def __init__(self, network: FoldedNetwork, *, hop_length: int) -> None:
        """Begin at the first sample.

        Args:
            network: the folded network.
            hop_length: samples between segment starts, at most the length of a segment.
        """
        length = network.config.segment_length
        if not 1 <= hop_length <= length:
            raise ValueError(f"hop_length is {hop_length}: it must be from 1 to {length} samples")
        self._network, self._length, self._hop_length = network, length, hop_length
        self._rest = np.zeros(0, np.float32)
        self._offset = 0  # of the rest in the recording
        self._next = 0  # start of the next segment in the recording

    def push(self, block: Waveform) -> SegmentOutputs:
        """What the network says of the segments that end in the next block [T]."""
        waveform = np.concatenate([self._rest, block]) if len(self._rest) else block
        last = len(waveform) - self._length
        outputs = self._listen(
            waveform, np.arange(self._next - self._offset, last + 1, self._hop_length)
        )
        self._next += len(outputs.starts) * self._hop_length
        self._rest = waveform[max(last, 0) :].copy()  # the block's memory may be used again
        self._offset += max(last, 0)
        return outputs

    def finish(self) -> SegmentOutputs:
        """Of the segment that ends with the recording, padded if it is all of it; or of none."""
        heard = self._next - self._hop_length == self._offset
        padded = pad(self._rest, segment_length=self._length)
        outputs = self._listen(padded, np.zeros(int(not heard), np.int64))
        return replace(outputs, n_samples=self._offset + len(self._rest))

    def _listen(self, waveform: Waveform, starts: NDArray[np.int64]) -> SegmentOutputs:
        if not len(starts):
            return SegmentOutputs.nothing(self._network.config.n_outputs)
        parts = self._network.listen(waveform, starts, hop_length=self._hop_length)
        return SegmentOutputs(starts + self._offset, *parts, self._offset + len(waveform))


def segment_outputs(
    network: FoldedNetwork, blocks: Iterable[Waveform], *, hop_length: int
) -> SegmentOutputs:
    """Run the network over the segments of a recording that comes in blocks.

    Args:
        network: the folded network.
        blocks: consecutive pieces [T_i] of one waveform; memory is bounded by the largest.
        hop_length: samples between segment starts, at most the length of a segment.
    """
    stream = SegmentStream(network, hop_length=hop_length)
    return SegmentOutputs.join([*map(stream.push, blocks), stream.finish()])


class Classifier:
    """A model ready to be asked.

    >>> load("cats-dogs").classes
    ('cat', 'dog')
    """

    def __init__(self, model: Model) -> None:
        """Fold the network once."""
        self.model = model
        self.network = model.fold()

    @property
    def config(self) -> ModelConfig:
        """The network's numbers."""
        return self.model.config

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of all probabilities."""
        return self.config.classes

    def hop_length(self, hop: float | Literal["dense"] | None) -> int:
        """Samples between segment starts.

        Args:
            hop: seconds; "dense" for one answer every 64 ms (the product of all strides);
                None for about a quarter of a segment.

        Raises:
            UsageError: shorter than a sample or longer than a segment.
        """
        length = self.config.segment_length
        if hop is None:
            return self.config.hop_length
        if hop == "dense":
            return self.config.dense_hop_length
        samples = round(float(hop) * self.config.sample_rate) if is_number(hop) else 0
        if not 1 <= samples <= length:
            raise UsageError(
                f"hop is {hop!r} seconds: give 'dense' or seconds above 0, at most"
                f" {self.config.segment_seconds:g}"
            )
        return samples

    def predict(
        self,
        source: str | Path | bytes | Waveform,
        *,
        sample_rate: int | None = None,
        hop: float | Literal["dense"] | None = None,
        vote: Vote = "mean",
    ) -> Prediction:
        """Classify one recording.

        Args:
            source: a file, its bytes, or a waveform [T]: real numbers within 1, or whole numbers
                over the range of their type.
            sample_rate: of a waveform, in Hz; the model's own if not given.
            hop: seconds between segments, "dense", or None for a quarter of a segment.
            vote: how the segments' answers become the recording's.

        Raises:
            AudioError: no audio that can be vouched for.
            UsageError: a hop out of range.
            ValueError: a waveform that is not one-dimensional, real and finite, at no rate, or
                something else than one.
        """
        hop_length = self.hop_length(hop)
        if isinstance(source, np.ndarray):
            waveform = self._resampled(source, sample_rate)
            outputs, found = self._listen([waveform], hop_length=hop_length)
            return self._answer("", outputs, found, vote=vote)
        with audio.open_stream(
            source, sample_rate=self.config.sample_rate, block_seconds=BLOCK_SECONDS
        ) as stream:
            outputs, found = self._listen(
                stream, hop_length=hop_length, file_sample_rate=stream.file_sample_rate
            )
        path = "" if isinstance(source, bytes) else str(source)
        flags, notes = (*stream.flags, *found[0]), (*stream.notes, *found[1])
        return self._answer(path, outputs, (flags, notes), vote=vote)

    def _listen(
        self, blocks: Iterable[Waveform], *, hop_length: int, file_sample_rate: int | None = None
    ) -> tuple[SegmentOutputs, Findings]:
        """What the network says, and in which ways the recording is unlike those it learnt from."""
        known = self.model.profile
        if known is None:
            return segment_outputs(self.network, blocks, hop_length=hop_length), ((), ())
        profiler = Profiler(self.config.sample_rate)

        def followed() -> Iterator[Waveform]:
            for block in blocks:
                profiler.add(block)
                yield block

        outputs = segment_outputs(self.network, followed(), hop_length=hop_length)
        found = shifts(known, profiler.result(sample_rate_hz=file_sample_rate))
        return outputs, (tuple(flag for flag, _ in found), tuple(note for _, note in found))

    def _resampled(self, waveform: Waveform, sample_rate: int | None) -> Waveform:
        if waveform.ndim != 1 or not len(waveform) or waveform.dtype.kind not in "fiu":
            raise ValueError(f"a waveform is [T], real: this is {waveform.dtype} {waveform.shape}")
        waveform = _within_one(waveform)
        if not (np.abs(waveform) <= LOUDEST).all():  # nor is NaN
            raise ValueError("the waveform has samples that are not finite, or absurdly large")
        if sample_rate is None or sample_rate == self.config.sample_rate:
            return waveform
        low, high = SAMPLE_RATES_HZ
        if not is_number(sample_rate) or not low <= sample_rate <= high:
            raise ValueError(f"sample_rate is {sample_rate!r}: give {low:,} to {high:,} Hz")
        resampled: Waveform = soxr.resample(waveform, sample_rate, self.config.sample_rate)
        return resampled

    def _answer(
        self, path: str, outputs: SegmentOutputs, found: Findings, *, vote: Vote
    ) -> Prediction:
        config, calibration = self.config, self.model.calibration
        flags, notes = found
        shares = outputs.vote(vote, gate=config.gate)
        winner = int(shares.argmax())
        if vote == "mean":
            shares = scale(shares[None], calibration.clip_temperature)[0]
        if outputs.n_samples < config.segment_length:
            flags = (*flags, "short")
            notes = (*notes, f"shorter than a segment of {config.segment_seconds:g} s; padded")
        label, score = config.classes[winner], float(outputs.scores(gate=config.gate)[winner])
        if score < self.model.acceptance.thresholds.get(label, 0.0) or not outputs.peaks.any():
            flags = (*flags, NONE)
            notes = (*notes, f"likely none of {', '.join(config.classes)}")
        return Prediction(
            path=path,
            label=label,
            probability=float(shares[winner]),
            probabilities=dict(zip(config.classes, shares.tolist(), strict=True)),
            duration_seconds=outputs.n_samples / config.sample_rate,
            flags=flags,
            notes=notes,
            start_seconds=outputs.starts / config.sample_rate,
            segment_probabilities=scale(
                probabilities(outputs.logits), calibration.segment_temperature
            ),
        )


def _within_one(samples: NDArray[Any]) -> Waveform:
    """Real numbers as they are, whole ones over the range of their type: [T] -> [T]."""
    if samples.dtype.kind in "iu":
        limits = np.iinfo(samples.dtype)
        end = int(limits.max) + 1
        middle = (end + int(limits.min)) // 2
        samples = (samples.astype(np.float64) - middle) / (end - middle)
    with np.errstate(over="ignore"):  # what is no longer finite is refused
        return np.ascontiguousarray(samples, np.float32)


def load(model: str | Path) -> Classifier:
    """A classifier from a model file, a run folder, or the name of a shipped model.

    Raises:
        ModelFileError: there is no such model, or its file is damaged.
    """
    return Classifier(checkpoint.load(model_path(model)))


def model_path(model: str | Path) -> Path:
    """The file of a model, a run folder, or the name of a shipped model.

    Raises:
        ModelFileError: there is no such model.
    """
    path = Path(model)
    shipped = SHIPPED / f"{model}.safetensors"
    if path.is_dir():
        path = path / checkpoint.MODEL_FILE
    if not path.exists() and shipped.is_file():  # also beside a folder of recordings of that name
        path = shipped
    if not path.exists():
        names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors")))
        raise ModelFileError(
            f"{model}: no such model; give a model file, a run folder, or one of: {names}"
        )
    return path
