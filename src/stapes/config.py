"""The numbers that define a network and its training. Free of any deep-learning framework."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from stapes.errors import UsageError

SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One network of the family: equal blocks of convolution, normalisation and ReLU.

    Attributes:
        classes: ordered class names, at least two.
        n_layers: blocks of Conv1d -> batch normalisation -> ReLU.
        n_filters: filters in every block.
        kernel_size: taps of every filter, in samples of that block's input.
        stride: by how much every block divides the length.
        segment_length: input length in samples.
        sample_rate: Hz.

    >>> ModelConfig(("cat", "dog")).layer_lengths
    (16000, 8000, 4000, 2000, 1000, 500, 250, 125, 63, 32, 16)
    >>> ModelConfig(("cat", "dog")).n_parameters
    3041
    >>> ModelConfig(("cat", "dog")).receptive_field
    2047
    """

    classes: tuple[str, ...]
    n_layers: int = 10
    n_filters: int = 10
    kernel_size: int = 3
    stride: int = 2
    segment_length: int = 16_000
    sample_rate: int = SAMPLE_RATE

    def __post_init__(self) -> None:
        """Check every number against its range.

        Raises:
            UsageError: a number out of range, or fewer than two distinct classes.
        """
        _check_range(self, "n_layers", 1, 16)
        _check_range(self, "n_filters", 1, 256)
        _check_range(self, "kernel_size", 1, 255)
        _check_range(self, "stride", 1, 16)
        _check_range(self, "segment_length", 16, 10_000_000)
        _check_range(self, "sample_rate", 1_000, 192_000)
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise UsageError(f"classes is {list(self.classes)}: give at least two distinct names")

    @property
    def n_outputs(self) -> int:
        """Logits: one for two classes (a logistic unit), else one a class (softmax)."""
        return 1 if len(self.classes) == 2 else len(self.classes)

    @property
    def layer_lengths(self) -> tuple[int, ...]:
        """Time steps of the input and after each block: T -> ceil(T / stride)."""
        lengths = [self.segment_length]
        for _ in range(self.n_layers):
            lengths.append(-(-lengths[-1] // self.stride))
        return tuple(lengths)

    @property
    def segment_seconds(self) -> float:
        """Length of a segment in seconds."""
        return self.segment_length / self.sample_rate

    @property
    def receptive_field(self) -> int:
        """Input samples that one final frame sees: 1 + (kernel - 1) * sum of stride^i."""
        return 1 + (self.kernel_size - 1) * sum(self.stride**i for i in range(self.n_layers))

    @property
    def n_parameters(self) -> int:
        """Trainable parameters: convolutions with bias, normalisation's two vectors, the head."""
        first = self.kernel_size * self.n_filters + self.n_filters
        other = self.kernel_size * self.n_filters**2 + self.n_filters
        normalisation = 2 * self.n_filters * self.n_layers
        head = (self.n_filters + 1) * self.n_outputs
        return first + other * (self.n_layers - 1) + normalisation + head


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a network is trained; everything that, with the data, decides the result.

    Attributes:
        seed: of the initial weights and of every random choice.
        epochs: at most this many.
        steps_per_epoch: gradient steps between two looks at the validation part.
        batch_size: segments a step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW, decoupled.
        gate: smallest peak of a segment, as a share of its clip's peak.
        speed: segments play up to this share faster or slower.
        mixing_alpha: of the Beta distribution for between-class mixing; 0 is off.
        equaliser_db: standard deviation of the random frequency response; 0 is off.
        noise_low_db: quietest added noise against the segment.
        noise_high_db: loudest added noise against the segment.
        averaging: decay a step of the exponential average of the weights; 0 is off.
        validation_share: share of the sources that choose the best epoch.
        patience: epochs without a better validation loss before stopping early; 0 is never.
        device: "cpu" or "cuda".
    """

    seed: int = 0
    epochs: int = 30
    steps_per_epoch: int = 100
    batch_size: int = 32
    learning_rate: float = 0.01
    weight_decay: float = 0.05
    gate: float = 0.4
    speed: float = 0.15
    mixing_alpha: float = 1.0
    equaliser_db: float = 4.0
    noise_low_db: float = -50.0
    noise_high_db: float = -5.0
    averaging: float = 0.995
    validation_share: float = 0.1
    patience: int = 0
    device: str = "cpu"


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


def _check_range(config: Any, name: str, low: float, high: float) -> None:
    value = getattr(config, name)
    integer = isinstance(low, int) and isinstance(high, int)
    right_type = isinstance(value, int if integer else (int, float)) and not isinstance(value, bool)
    if not right_type or not math.isfinite(value) or not low <= value <= high:
        kind = "a whole number" if integer else "a number"
        raise UsageError(f"{name} is {value!r}: give {kind} from {low} to {high}")


def as_dict(config: Any) -> dict[str, Any]:
    """Fields of a configuration as plain values, ready for JSON."""
    return dataclasses.asdict(config)
