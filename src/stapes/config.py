"""The numbers that define a network and its training. Free of any deep-learning framework."""

import dataclasses
import math
from dataclasses import dataclass
from itertools import accumulate
from numbers import Integral, Real
from typing import Any

from stapes.errors import UsageError

SAMPLE_RATE = 16_000

QUIETEST_NOISE_DB = -50.0
"""Lower end of the level of noise that is added in training, against the segment."""


MOST = {"n_parameters": 2**23, "n_multiply_adds": 2**34, "n_values": 2**25}
"""What a network may take: files of 32 MB, about a second a segment, and 128 MB for a block."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One network of the family: blocks of convolution, normalisation and ReLU.

    Attributes:
        classes: ordered class names, at least two.
        n_layers: blocks of Conv1d -> batch normalisation -> ReLU.
        n_filters: filters in every block, or in each [n_layers].
        kernel_size: taps of every filter, in samples of that block's input, or of each block's.
        stride: by how much every block divides the length, or each block.
        segment_length: input length in samples.
        sample_rate: Hz.
        gate: smallest peak of a segment that counts, as a share of its clip's peak in training, and
            of the highest segment's in the vote.
        normalise: every segment by its own statistics; off only for waveforms that were
            normalised before, whose segments are not varied in training either.

    >>> ModelConfig(("cat", "dog")).layer_lengths
    (16000, 8000, 4000, 2000, 1000, 500, 250, 125, 63, 32, 16)
    >>> ModelConfig(("cat", "dog")).n_parameters
    3041
    >>> ModelConfig(("cat", "dog")).receptive_field
    2047
    """

    classes: tuple[str, ...]
    n_layers: int = 10
    n_filters: int | tuple[int, ...] = 10
    kernel_size: int | tuple[int, ...] = 3
    stride: int | tuple[int, ...] = 2
    segment_length: int = 16_000
    sample_rate: int = SAMPLE_RATE
    gate: float = 0.4
    normalise: bool = True

    def __post_init__(self) -> None:
        """Check every number against its range.

        Raises:
            UsageError: a number out of range, fewer than two distinct classes, or a network that
                takes too much.
        """
        _check_range(self, "n_layers", 1, 16)
        _check_ranges(self, "n_filters", 1, 256)
        _check_ranges(self, "kernel_size", 1, 255)
        _check_ranges(self, "stride", 1, 16)
        _check_range(self, "segment_length", 16, 10_000_000)
        _check_range(self, "sample_rate", 1_000, 192_000)
        _check_range(self, "gate", 0.0, 1.0)
        _check_switch(self, "normalise")
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise UsageError(f"classes is {list(self.classes)}: give at least two distinct names")
        for name, most in MOST.items():
            if (found := getattr(self, name)) > most:
                raise UsageError(
                    f"{name} of the network is {found:,}: it must be at most {most:,}; give shorter"
                    " segments, fewer or shorter filters, or longer strides"
                )

    @property
    def n_outputs(self) -> int:
        """Logits: one for two classes (a logistic unit), else one a class (softmax)."""
        return 1 if len(self.classes) == 2 else len(self.classes)

    @property
    def channels(self) -> tuple[int, ...]:
        """Filters of each block."""
        return _each(self.n_filters, self.n_layers)

    @property
    def kernel_sizes(self) -> tuple[int, ...]:
        """Taps of each block's filters."""
        return _each(self.kernel_size, self.n_layers)

    @property
    def strides(self) -> tuple[int, ...]:
        """By how much each block divides the length."""
        return _each(self.stride, self.n_layers)

    @property
    def kernel_shapes(self) -> list[tuple[int, int, int]]:
        """Filters, channels in and taps of each block: [C_out, C_in, K]."""
        return list(zip(self.channels, (1, *self.channels), self.kernel_sizes, strict=False))

    @property
    def layer_lengths(self) -> tuple[int, ...]:
        """Time steps of the input and after each block: T -> ceil(T / stride)."""
        lengths = accumulate(self.strides, lambda n, s: -(-n // s), initial=self.segment_length)
        return tuple(lengths)

    @property
    def total_stride(self) -> int:
        """Samples between two final frames: segments that start so far apart share frames.

        >>> ModelConfig(("cat", "dog")).total_stride
        1024
        """
        return math.prod(self.strides)

    @property
    def dense_hop_length(self) -> int:
        """The finest hop at which overlapping segments share frames."""
        return min(self.total_stride, self.segment_length)

    @property
    def hop_length(self) -> int:
        """Samples between segments unless asked otherwise: a quarter of one, in dense hops.

        >>> ModelConfig(("cat", "dog")).hop_length
        4096
        """
        dense = self.dense_hop_length
        return min(max(round(self.segment_length / 4 / dense), 1) * dense, self.segment_length)

    @property
    def segment_seconds(self) -> float:
        """Length of a segment in seconds."""
        return self.segment_length / self.sample_rate

    @property
    def receptive_field(self) -> int:
        """Input samples that one final frame sees: 1 + sum of (kernel - 1) * strides before."""
        spacings = accumulate(self.strides, lambda a, b: a * b, initial=1)
        return 1 + sum((k - 1) * s for k, s in zip(self.kernel_sizes, spacings, strict=False))

    @property
    def n_parameters(self) -> int:
        """Trainable parameters: convolutions with bias, normalisation's two vectors, the head."""
        convolutions = sum(map(math.prod, self.kernel_shapes)) + sum(self.channels)
        head = (self.channels[-1] + 1) * self.n_outputs
        return convolutions + 2 * sum(self.channels) + head

    @property
    def n_multiply_adds(self) -> int:
        """Of the blocks' convolutions, for one segment."""
        frames = zip(self.layer_lengths[1:], self.kernel_shapes, strict=True)
        return sum(length * math.prod(shape) for length, shape in frames)

    @property
    def n_values(self) -> int:
        """Of the largest block's activations, for one segment."""
        return max(map(math.prod, zip(self.layer_lengths, (1, *self.channels), strict=True)))


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a network is trained; everything that, with the data, decides the result.

    Attributes:
        seed: of the splits, the initial weights and every random choice.
        epochs: at most this many.
        steps_per_epoch: gradient steps between two looks at the validation part.
        batch_size: segments a step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW, decoupled.
        averaging: decay a step of the exponential average of the weights; 0 is off.
        low_cut: the filters of the first block let nothing through at 0 Hz, and little of what is
            far below their range, such as rumble.
        speed: segments play up to this share faster or slower; 0 is off.
        polarity: turn half of the segments upside down.
        mixing: alpha of the Beta distribution of between-class mixing; 0 is off.
        unmixed_share: share of the steps, the last ones, in which nothing is mixed, so that the
            network ends with sounds like those it will hear.
        equaliser_db: standard deviation of the random frequency response; 0 is off, and then no
            noise is added either.
        noise_db: loudest added noise against the segment before its random response, in dB; rumble
            may be 12 dB louder, where little of it lies above 300 Hz.
        negatives: share of each batch that is none of the classes: made up, and half of it the
            user's own where there are any; 0 is off, and the network then takes everything for
            one of its classes.
        validation_share: share of each class's clips, in whole sources, that choose the best epoch;
            0 learns from them, too, and keeps the last, which a falling learning rate and averaged
            weights make good.
        patience: epochs without a better validation loss before stopping early; 0 is never.
        device: "cpu" or "cuda".
    """

    seed: int = 0
    epochs: int = 30
    steps_per_epoch: int = 100
    batch_size: int = 32
    learning_rate: float = 0.01
    weight_decay: float = 0.05
    averaging: float = 0.995
    low_cut: bool = True
    speed: float = 0.15
    polarity: bool = True
    mixing: float = 1.0
    unmixed_share: float = 0.2
    equaliser_db: float = 6.0
    noise_db: float = -3.0
    negatives: float = 0.125
    validation_share: float = 0.0
    patience: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check every number against its range.

        Raises:
            UsageError: a number out of range, an unknown device, or patience without validation.
        """
        _check_range(self, "seed", 0, 2**32 - 1)
        _check_range(self, "epochs", 1, 100_000)
        _check_range(self, "steps_per_epoch", 1, 100_000)
        _check_range(self, "batch_size", 2, 4096)
        _check_range(self, "learning_rate", 1e-7, 1.0)
        _check_range(self, "weight_decay", 0.0, 1.0)
        _check_range(self, "averaging", 0.0, 0.999999)
        _check_range(self, "speed", 0.0, 0.5)
        _check_range(self, "mixing", 0.0, 100.0)
        _check_range(self, "unmixed_share", 0.0, 1.0)
        _check_range(self, "equaliser_db", 0.0, 30.0)
        _check_range(self, "noise_db", QUIETEST_NOISE_DB, 20.0)
        _check_range(self, "negatives", 0.0, 0.5)
        _check_range(self, "validation_share", 0.0, 0.5)
        _check_range(self, "patience", 0, 100_000)
        _check_switch(self, "low_cut")
        _check_switch(self, "polarity")
        if self.patience and not self.validation_share:
            raise UsageError(
                f"patience is {self.patience}, but nothing is held out to be patient with: give"
                " validation_share (--validation-share), such as 0.1"
            )
        if self.device not in ("cpu", "cuda"):
            raise UsageError(f"device is {self.device!r}: give 'cpu' or 'cuda'")

    @property
    def n_steps(self) -> int:
        """Gradient steps of a training that is not stopped early."""
        return self.epochs * self.steps_per_epoch

    def mixing_at(self, step: int) -> float:
        """Alpha of the mixing in a step, counted from 0.

        >>> TrainingConfig().mixing_at(2399), TrainingConfig().mixing_at(2400)
        (1.0, 0.0)
        """
        return self.mixing if step < (1 - self.unmixed_share) * self.n_steps else 0.0

    @property
    def n_negatives(self) -> int:
        """Segments of each batch that are none of the classes: at least one, unless it is off."""
        return max(int(self.negatives * self.batch_size), 1) if self.negatives else 0


PRESETS: dict[str, dict[str, Any]] = {
    "classic": {"n_layers": 10, "n_filters": 10, "kernel_size": 3, "stride": 2},
    "small": {
        "n_layers": 8,
        "n_filters": (16, 16, 20, 28, 30, 30, 30, 28),
        "kernel_size": (9, 8, 8, 8, 5, 5, 3, 3),
        "stride": (4, 4, 4, 4, 1, 2, 2, 1),
    },
    "large": {
        "n_layers": 10,
        "n_filters": (24, 32, 48, 64, 72, 72, 72, 72, 72, 72),
        "kernel_size": (9, 5, 5, 5, 3, 3, 3, 3, 3, 3),
        "stride": (4, 4, 4, 4, 1, 1, 2, 1, 2, 1),
    },
}
"""Named networks of the family, smallest first: 23,775 and 120,553 parameters for two classes."""

PRESET_EPOCHS = {"classic": (30, 89), "small": (50, 112), "large": (50, 112)}
"""For how long each is trained on two classes, and on ten, unless asked otherwise."""


def preset_sizes(preset: str) -> dict[str, Any]:
    """What a preset fixes of :class:`ModelConfig`; the classes come from the data.

    Raises:
        UsageError: there is no such preset.
    """
    if preset not in list(PRESETS):  # also of what cannot be a key
        raise UsageError(f"preset is {preset!r}: give one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def epochs_for(preset: str, *, n_classes: int) -> int:
    """Epochs that grow with a power of the number of classes, for each is heard more seldom.

    >>> epochs_for("classic", n_classes=2), epochs_for("classic", n_classes=8)
    (30, 77)
    """
    of_two, of_ten = PRESET_EPOCHS[preset]
    return round(of_two * math.pow(n_classes / 2, math.log(of_ten / of_two, 10 / 2)))


def preset_training(preset: str, *, n_classes: int = 2) -> dict[str, Any]:
    """What a preset changes of the defaults of :class:`TrainingConfig`.

    Raises:
        UsageError: there is no such preset.
    """
    preset_sizes(preset)
    return {"epochs": epochs_for(preset, n_classes=n_classes)}


def same_padding(length: int, *, kernel_size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an input so that it gives ceil(length / stride) outputs.

    TensorFlow's rule (https://www.tensorflow.org/api_docs/python/tf/nn, "SAME"): the total is
    max((ceil(T / s) - 1) * s + k - T, 0), and the odd one goes behind.

    >>> same_padding(16000, kernel_size=3, stride=2), same_padding(125, kernel_size=3, stride=2)
    ((0, 1), (1, 1))
    """
    n_outputs = -(-length // stride)
    total = max((n_outputs - 1) * stride + kernel_size - length, 0)
    return total // 2, total - total // 2


def _each(value: int | tuple[int, ...], n_layers: int) -> tuple[int, ...]:
    """A number of every block, for each of them."""
    return (value,) * n_layers if isinstance(value, int) else value


def _check_ranges(config: ModelConfig, name: str, low: int, high: int) -> None:
    """Check a number of every block, or one of each."""
    value = getattr(config, name)
    if isinstance(value, list):
        raise UsageError(f"{name} is a list: give a tuple, {tuple(value)!r}")
    if not isinstance(value, tuple):
        return _check_range(config, name, low, high)
    wanted = [isinstance(v, Integral) and is_number(v) and low <= int(v) <= high for v in value]
    if len(value) != config.n_layers or not all(wanted):
        raise UsageError(
            f"{name} is {list(value)!r}: give one whole number from {low} to {high}, or one for"
            f" each of {config.n_layers} layers"
        )
    return object.__setattr__(config, name, tuple(map(int, value)))


def is_number(value: Any) -> bool:
    """Whether a value, of JSON or NumPy perhaps, is a finite number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def in_range(name: str, value: Any, low: float, high: float) -> Any:
    """A number as Python's own, if it is in its range: a whole one, where both ends are.

    Raises:
        UsageError: it is none, or out of it.
    """
    whole = isinstance(low, int) and isinstance(high, int)
    right_type = is_number(value) and (isinstance(value, Integral) or not whole)
    if not right_type or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise UsageError(f"{name} is {value!r}: give {kind} from {low} to {high}")
    return int(value) if whole else float(value)


def _check_range(config: Any, name: str, low: float, high: float) -> None:
    """Check a number of a configuration, and keep it as Python's own."""
    object.__setattr__(config, name, in_range(name, getattr(config, name), low, high))


def _check_switch(config: Any, name: str) -> None:
    value = getattr(config, name)
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}: give True or False")


def as_dict(config: Any) -> dict[str, Any]:
    """Fields of a configuration as plain values, ready for JSON."""
    return dataclasses.asdict(config)
