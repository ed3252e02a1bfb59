"""Whether a recording is of any class at all: a threshold a class, with a stated coverage.

A recording is accepted if the score of the class it is called reaches that class's threshold.
The thresholds come from recordings of the classes that the networks did not learn from, so that
a stated share of new ones is accepted, however the scores are distributed and however few
sources there were (conformal prediction; with several clips a source: Lee, Barber and Willett
2023, "Distribution-free inference with hierarchical data", https://arxiv.org/abs/2306.06342).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stapes.config import is_number

COVERAGE = 0.95
"""Share of the recordings of the classes that is to be accepted."""

ROUNDING = 1e-9
"""Shares that differ by less are the same."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was said of recordings, one row each; the same one more than once by several networks.

    Attributes:
        called: index of the class each was called [N].
        scores: of that class, from 0 to 1 [N].
        sources: the source each was cut from [N].
    """

    called: NDArray[np.int64]
    scores: NDArray[np.float32]
    sources: Sequence[str]

    def pick(self, rows: NDArray[np.bool_]) -> Self:
        """The rows that a mask [N] holds."""
        sources = [source for source, kept in zip(self.sources, rows, strict=True) if kept]
        return type(self)(self.called[rows], self.scores[rows], sources)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Thresholds of the classes.

    Attributes:
        thresholds: the lowest score that is accepted, by class, in the order of the classes; 0,
            which accepts everything, where there were too few sources to say.
        coverage: share of new recordings, among those called a class, that reach its threshold.
    """

    thresholds: Mapping[str, float]
    coverage: float = COVERAGE

    def __post_init__(self) -> None:
        """Check every number against its range.

        Raises:
            ValueError: a coverage or a threshold that is none.
        """
        if not is_number(self.coverage) or not 0 < self.coverage < 1:
            raise ValueError(f"coverage is {self.coverage!r}: it must be above 0 and below 1")
        for name, threshold in self.thresholds.items():
            if not is_number(threshold) or not 0 <= threshold <= 1:
                raise ValueError(f"threshold of {name} is {threshold!r}: it must be from 0 to 1")

    @property
    def lowest(self) -> NDArray[np.float64]:
        """The thresholds by index of the class."""
        return np.array(list(self.thresholds.values()))

    def accepts(self, judged: Judged) -> NDArray[np.bool_]:
        """Which recordings are of a class: [N]."""
        accepted: NDArray[np.bool_] = judged.scores >= self.lowest[judged.called]
        return accepted

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"coverage": self.coverage, "thresholds": dict(self.thresholds)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, classes: Sequence[str]) -> Self:
        """What :meth:`as_dict` gave, checked.

        Raises:
            ValueError: a part that is missing, of another type or out of range, or thresholds
                of other classes than these.
        """
        thresholds = values.get("thresholds")
        if not isinstance(thresholds, Mapping) or set(thresholds) != set(classes):
            raise ValueError(f"thresholds are {thresholds!r}: give one for each of {list(classes)}")
        in_order = {name: thresholds[name] for name in classes}
        return cls(in_order, values.get("coverage", math.nan))


def n_sources_needed(coverage: float = COVERAGE) -> int:
    """Sources of a class below which no threshold has the coverage.

    >>> n_sources_needed(0.95)
    19
    """
    return math.ceil(1 / (1 - coverage) - ROUNDING) - 1


def fit(judged: Judged, *, classes: Sequence[str], coverage: float = COVERAGE) -> Acceptance:
    """The highest thresholds with a coverage.

    For a class, K sources have recordings that are called it, and each of the n_k recordings of
    source k counts 1 / ((K + 1) n_k). What lies below the threshold, and 1 / (K + 1) for the
    source that is to come, is together at most 1 - coverage. Then a recording that is called the
    class, taken at random from a new source, reaches the threshold with a probability of at
    least the coverage.

    Args:
        judged: recordings of the classes, by networks that did not learn from their sources.
        classes: their names in order.
        coverage: above 0 and below 1.
    """
    thresholds = {
        name: _threshold(judged.pick(judged.called == index), coverage)
        for index, name in enumerate(classes)
    }
    return Acceptance(thresholds, coverage)


def crossfit(
    judged: Judged,
    groups: NDArray[np.int64],
    *,
    classes: Sequence[str],
) -> NDArray[np.float64]:
    """Which recordings are accepted by thresholds fitted without their own group.

    Args:
        judged: as for :func:`fit`.
        groups: a number for each recording [N], the same for all of one source.
        classes: their names in order.

    Returns:
        1 where it is accepted and 0 where not [N]; nan where without its group there are too few
        sources to set the threshold that there is with it.
    """
    accepted = np.zeros(len(groups))
    set_by_all = fit(judged, classes=classes).lowest > 0
    for group in np.unique(groups):
        own = groups == group
        fitted = fit(judged.pick(~own), classes=classes)
        unknown = set_by_all & (fitted.lowest == 0)
        answers = fitted.accepts(judged.pick(own))
        accepted[own] = np.where(unknown[judged.called[own]], np.nan, answers)
    return accepted


def curve(
    judged: Judged, foreign: Judged, *, classes: Sequence[str], coverages: Sequence[float]
) -> list[tuple[float, float]]:
    """Share of foreign recordings that are accepted, at each of several coverages.

    Args:
        judged: as for :func:`fit`.
        foreign: recordings of none of the classes.
        classes: their names in order.
        coverages: above 0 and below 1.

    Returns:
        Pairs of coverage and share; the share is nan where there are no foreign recordings.
    """
    pairs = []
    for coverage in coverages:
        accepted = fit(judged, classes=classes, coverage=coverage).accepts(foreign)
        pairs.append((coverage, float(accepted.mean()) if len(accepted) else math.nan))
    return pairs


def _threshold(judged: Judged, coverage: float) -> float:
    """The highest score with little enough below it; 0 if the source to come is too much."""
    names, source = np.unique(np.asarray(judged.sources), return_inverse=True)
    if len(names) < n_sources_needed(coverage):
        return 0.0
    order = np.argsort(judged.scores)
    weights = 1 / (len(names) + 1) / np.bincount(source)[source]
    below = np.concatenate([[0.0], np.cumsum(weights[order])[:-1]])  # of each and all before it
    n_allowed = int(np.sum(below + 1 / (len(names) + 1) <= 1 - coverage + ROUNDING))
    return float(judged.scores[order[n_allowed - 1]])
