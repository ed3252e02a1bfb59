"""Probabilities that mean what they say: temperature scaling, and how true they are.

A temperature T turns probabilities p into softmax(log p / T). It changes no answer, only how sure
it is (Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks",
https://arxiv.org/abs/1706.04599). It must be fitted on answers about recordings that the network
did not learn from.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stapes import evaluation
from stapes.config import is_number

Shares = NDArray[np.floating[Any]]

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures beyond make every probability 0 or 1, or all the same."""

RESOLUTION = 2.0**-24
"""Half the spacing of float32 below 1: a probability of 0 is one that was rounded to it."""

N_STEPS = 50
"""Halvings of the range of log T, which end at a relative error of 1e-14."""

N_BINS = 10

N_THROWS = 500
"""Of labels that agree with the probabilities, to see what chance makes."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The temperatures of a model; 1 leaves its probabilities as trained.

    Attributes:
        clip_temperature: of the mean vote of a clip, which is scaled as a whole.
        segment_temperature: of the probabilities of each segment.
    """

    clip_temperature: float = 1.0
    segment_temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check both temperatures.

        Raises:
            ValueError: one is no number, or out of range.
        """
        for name, value in self.as_dict().items():
            if not is_number(value) or not LOWEST <= value <= HIGHEST:
                raise ValueError(f"{name} is {value!r}: it must be from {LOWEST:g} to {HIGHEST:g}")

    def as_dict(self) -> dict[str, float]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What :meth:`as_dict` gave, checked.

        Raises:
            ValueError: it was something else.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, Mapping) or set(values) != names:
            raise ValueError(f"calibration is {values!r}: it must hold {sorted(names)}")
        return cls(**values)


def scale(shares: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Probabilities at another temperature: [N, C] -> [N, C] of the same type.

    A higher temperature makes them less sure. The class of the highest probability, or the first
    of those that share it, stays so. 1 gives back the very input.
    """
    if temperature == 1.0 or not shares.size:
        return shares
    scaled = _softmax(_logits(shares) / temperature).astype(shares.dtype)
    # Rounding can make a tie of two that were not quite one.
    rows, top = np.arange(len(shares)), shares.argmax(axis=1)
    tied = scaled.argmax(axis=1) != top
    raised = np.nextafter(scaled.max(axis=1), np.inf, dtype=scaled.dtype)
    scaled[rows[tied], top[tied]] = raised[tied]
    return scaled


def fit_temperature(
    targets: NDArray[np.int64],
    shares: NDArray[np.float32],
    *,
    weight: float = 1.0,
) -> float:
    """The temperature at which probabilities explain the labels best.

    The mean of -log p of the labels is convex in 1/T, so its slope is followed to where it changes
    sign. Beside the N labels there is one more observation, a label that could be any class, spread
    over all rows, as Platt (1999) smooths the targets of his sigmoid: for without it, answers that
    are all right would ask for a temperature of 0, and for certainty of everything.

    Args:
        targets: class indices [N].
        shares: probabilities [N, C], of recordings that the network did not learn from.
        weight: what a row counts, above 0: less than 1 where several are about one recording.

    Returns:
        From 0.05 to 20: the highest where the probabilities say less than nothing; 1 where there
        is nothing to fit (no rows, one class, or probabilities that are all alike).
    """
    logits = _logits(shares)
    if not len(shares) or np.ptp(logits, axis=1).max() < RESOLUTION:
        return 1.0
    share = 1 / (weight * len(shares) + 1)
    own = logits[np.arange(len(targets)), targets]
    wanted = (1 - share) * own + share * logits.mean(axis=1)

    def slope(temperature: float) -> float:
        """Of the loss by 1/T: what the probabilities expect of the logits less what is there."""
        expected = (_softmax(logits / temperature) * logits).sum(axis=1)
        return float((expected - wanted).sum())

    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(N_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
    return min(max(math.exp((low + high) / 2), LOWEST), HIGHEST)


def crossfit(
    targets: NDArray[np.int64],
    shares: NDArray[np.float32],
    folds: NDArray[np.int64],
    *,
    weight: float = 1.0,
) -> NDArray[np.float32]:
    """Each fold's probabilities, scaled by the temperature of the other folds.

    Args:
        targets: class indices [N].
        shares: probabilities [N, C].
        folds: a number for each row [N], the same for all rows of one source.
        weight: of a row, as for :func:`fit_temperature`.

    Returns:
        [N, C]: what calibration makes of rows that it was not fitted on.
    """
    scaled = shares.copy()
    for fold in np.unique(folds):
        own = folds == fold
        temperature = fit_temperature(targets[~own], shares[~own], weight=weight)
        scaled[own] = scale(shares[own], temperature)
    return scaled


def reliability(targets: NDArray[np.int64], shares: NDArray[np.float32]) -> list[dict[str, float]]:
    """How often answers are right, by how sure they are.

    The :data:`N_BINS` bins divide what the highest of C probabilities can be, 1/C to 1, into equal
    widths; each holds its upper end and the first its lower end, too. Bins from 0 to 1, as Guo et
    al. draw them, would leave half of them empty for two classes and so hide errors that cancel
    within the others.

    Args:
        targets: class indices [N].
        shares: probabilities [N, C].

    Returns:
        For every bin that is not empty ``low``, ``high``, the mean ``confidence``, the
        ``accuracy`` and the number ``n`` of rows, ascending.
    """
    if not len(targets):
        return []
    confidence, place = _binned(shares)
    right = shares.argmax(axis=1) == targets
    edges = _edges(shares.shape[1])
    return [
        {
            "low": float(edges[i]),
            "high": float(edges[i + 1]),
            "confidence": float(confidence[place == i].mean()),
            "accuracy": float(right[place == i].mean()),
            "n": int((place == i).sum()),
        }
        for i in np.unique(place)
    ]


def _edges(n_classes: int) -> NDArray[np.float64]:
    """Ends of the bins: [N_BINS + 1]."""
    return np.linspace(1 / n_classes, 1, N_BINS + 1)


def _binned(shares: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The highest probability of each row, and its bin: [N, C] -> [N], [N]."""
    confidence = shares.max(axis=1).astype(np.float64)
    return confidence, np.searchsorted(_edges(shares.shape[1])[1:-1], confidence, side="left")


def calibration_error(targets: NDArray[np.int64], shares: NDArray[np.float32]) -> float:
    """The expected calibration error: mean of |accuracy - confidence| over the rows' bins.

    Args:
        targets: class indices [N].
        shares: probabilities [N, C].

    Returns:
        From 0 to 1; nan of nothing. Chance alone makes it positive: of n answers in a bin that are
        right with probability p, by about 0.8 sqrt(p (1 - p) / n).
    """
    bins = reliability(targets, shares)
    gaps = [bin_["n"] * abs(bin_["accuracy"] - bin_["confidence"]) for bin_ in bins]
    return sum(gaps) / len(targets) if len(targets) else math.nan


def error_by_chance(shares: NDArray[np.float32], sources: Sequence[str]) -> float:
    """What the calibration error of true probabilities stays below in 19 of 20 cases.

    All rows of a source are right or wrong by one throw, so that many of one source, or several
    seeds, do not count as many.

    Args:
        shares: probabilities [N, C], taken to be true.
        sources: the source of each row [N].

    Returns:
        From 0 to 1; nan of nothing.
    """
    if not len(shares):
        return math.nan
    confidence, place = _binned(shares)
    names, source = np.unique(np.asarray(sources), return_inverse=True)
    stated = np.bincount(place, confidence, N_BINS)
    rng = np.random.default_rng(0)
    throws = (rng.random(len(names))[source] < confidence for _ in range(N_THROWS))
    errors = [np.abs(np.bincount(place, right, N_BINS) - stated).sum() for right in throws]
    return float(np.quantile(errors, evaluation.CONFIDENCE)) / len(shares)


def _logits(shares: Shares) -> NDArray[np.float64]:
    """Logarithms of probabilities, finite at 0: [N, C] -> [N, C]."""
    logits: NDArray[np.float64] = np.log(shares.astype(np.float64) + RESOLUTION)
    return logits


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of logits: [N, C] -> [N, C]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
