"""Pure metrics of clips and segments, with intervals. Nothing here reads files or trains."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
"""Of intervals; what chance explains more seldom than the rest is told as a difference."""


def accuracy(targets: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Share that is right; nan of nothing. [N], [N] -> number."""
    return float(np.mean(targets == predictions)) if len(targets) else float("nan")


def confusion(
    targets: NDArray[np.int64], predictions: NDArray[np.int64], *, n_classes: int
) -> NDArray[np.int64]:
    """How often each class (row) was called which (column): [N], [N] -> [n_classes, n_classes]."""
    counts = np.bincount(targets * n_classes + predictions, minlength=n_classes**2)
    matrix: NDArray[np.int64] = counts.reshape(n_classes, n_classes)
    return matrix


def recalls(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each class that was found: [C, C] -> [C]; nan for a class that does not occur."""
    totals = matrix.sum(axis=1)
    shares: NDArray[np.float64] = np.where(
        totals > 0, np.diag(matrix) / np.maximum(totals, 1), np.nan
    )
    return shares


def balanced_accuracy(matrix: NDArray[np.int64]) -> float:
    """Mean recall of the classes that occur; nan of nothing. [C, C] -> number."""
    found = recalls(matrix)
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def roc_area(targets: NDArray[np.int64], shares: NDArray[np.float32]) -> float:
    """Area under the ROC curve, averaged over the classes, each against the rest.

    Args:
        targets: [N].
        shares: probabilities [N, n_classes].

    Returns:
        Mean over the classes that have both positives and negatives; nan if none has.
    """
    from sklearn.metrics import roc_auc_score

    classes = [1] if shares.shape[1] == 2 else range(shares.shape[1])
    areas = [
        roc_auc_score(targets == c, shares[:, c])
        for c in classes
        if 0 < (targets == c).sum() < len(targets)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def roc_curve(
    targets: NDArray[np.int64], shares: NDArray[np.float32], *, index: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates of one class, where they bend: [N], [N, C] -> [M], [M]."""
    from sklearn.metrics import roc_curve as rates

    false_positives, true_positives, _ = rates(targets == index, shares[:, index])
    return false_positives, true_positives


def interval(right: NDArray[np.bool_], sources: Sequence[str]) -> tuple[float, float]:
    """95 % interval of an accuracy over sources.

    Clips and segments of one source stand or fall together. The interval is the exact one (Clopper
    and Pearson 1934, "The use of confidence or fiducial limits") of so many independent trials as
    would vary as much as the sources do (Korn and Graubard 1998, "Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data"). Where
    all sources are right alike, such as all of them, that is as many trials as there are sources.
    Where none is mostly wrong, it allows for the largest share of sources that are all wrong of
    which so many would miss all, and the same for right.

    Args:
        right: whether each clip or segment was right [N].
        sources: the source of each [N].

    Returns:
        Lower and upper end; (nan, nan) of nothing.
    """
    if not len(right):
        return math.nan, math.nan
    sums = _sum_by_source(np.stack([right, np.ones(len(right))], axis=1), sources)
    share, error, freedom = _mean_over_sources(sums)
    if error == 0:
        return _exact_ends(share * len(sums), len(sums))
    by_chance = math.sqrt(share * (1 - share)) * _quantile(len(right) - 1)
    n_trials = min((by_chance / (error * _quantile(freedom))) ** 2, len(right))
    low, high = _exact_ends(share * n_trials, n_trials)
    _, unseen = _exact_ends(0, len(sums))
    shares = sums[:, 0] / sums[:, 1]
    if shares.min() >= 0.5:
        low = min(low, (1 - unseen) * share)
    if shares.max() <= 0.5:
        high = max(high, unseen + (1 - unseen) * share)
    return low, high


def compare(
    right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], sources: Sequence[str]
) -> dict[str, Any]:
    """Whether a is more often right than b on the same clips.

    The interval is that of Student's t over sources, with the standard error of leaving out one
    at a time. Where the difference is the same in all of them, it allows for the largest share of
    other sources of which so many would miss all. The p-value is exact and takes
    whole sources as trials, too: if a and b were equally good, then in each source, as if by
    a coin, their answers could change places (Fisher's randomisation test). Where every source
    has one row this is McNemar's exact test (1947, "Note on the sampling error of the difference
    between correlated proportions"). Several clips of a source, or several seeds of a clip, are one
    trial and cannot make a difference look surer than it is.

    Args:
        right_a: whether a was right about each row [N]; a clip may have a row for each seed.
        right_b: whether b was right about the same [N].
        sources: the source of each [N].

    Returns:
        ``accuracy`` (that of a less that of b), its 95 % ``interval`` [low, high] and the two-sided
        ``p_value``; nan of nothing.
    """
    if not len(right_a):
        return {"accuracy": math.nan, "interval": [math.nan] * 2, "p_value": math.nan}
    ahead = right_a.astype(np.int64) - right_b
    sums = _sum_by_source(np.stack([ahead, np.ones(len(ahead))], axis=1), sources)
    difference, error, freedom = _mean_over_sources(sums)
    if error == 0:
        _, unseen = _exact_ends(0, len(sums))
        low, high = ((1 - unseen) * difference + side * unseen for side in (-1, 1))
    else:
        low, high = (difference + side * _quantile(freedom) * error for side in (-1, 1))
    return {
        "accuracy": float(ahead.mean()),
        "interval": [max(low, -1.0), min(high, 1.0)],
        "p_value": _randomisation_test(sums[:, 0].astype(np.int64)),
    }


def surely(difference: Mapping[str, Any]) -> int:
    """The sign of a difference that :func:`compare` found; 0 where it may be chance.

    It is none if the whole interval lies on one side of 0 and the p-value says so, too.
    """
    low, high = difference["interval"]
    if not difference["p_value"] < 1 - CONFIDENCE or low <= 0 <= high:
        return 0
    return 1 if low > 0 else -1


def _randomisation_test(ahead: NDArray[np.int64]) -> float:
    """Chance that a sum of numbers with random signs is as far from 0 as theirs: [N] -> number.

    What the positive ones add up to is distributed as the convolution of fair coins worth
    ``|ahead|`` each, which is computed one by one.
    """
    steps = ahead[ahead != 0]
    steps //= max(int(np.gcd.reduce(steps)), 1)
    distribution = np.ones(1)
    for worth in np.abs(steps).tolist():
        longer = np.pad(distribution, (0, worth))
        longer[worth:] += distribution
        distribution = longer / 2
    sums = 2 * np.arange(len(distribution)) - (len(distribution) - 1)
    return min(float(distribution[np.abs(sums) >= abs(steps.sum())].sum()), 1.0)


def _sum_by_source(values: NDArray[Any], sources: Sequence[str]) -> NDArray[np.float64]:
    """Sums over the rows of each source: [N, K] -> [n_sources, K]."""
    names, group = np.unique(np.asarray(sources, dtype=np.str_), return_inverse=True)
    columns = [np.bincount(group, weights=column, minlength=len(names)) for column in values.T]
    return np.stack(columns, axis=1)


def _mean_over_sources(sums: NDArray[np.float64]) -> tuple[float, float, float]:
    """A mean over rows, its standard error over sources, and the degrees of freedom of that.

    The error is the jackknife's, each source left out in turn (Efron and Tibshirani 1993, An
    Introduction to the Bootstrap, chapter 11). Of sources of very different sizes the large ones
    count: as many as of equal size would have a mean as uncertain (Kish 1965, Survey Sampling).

    Args:
        sums: sum and number of rows of each source [n_sources, 2].

    Returns:
        The mean; 0 for the error if all sources have the same one.
    """
    values, counts = sums.T
    mean, n = values.sum() / counts.sum(), len(sums)
    if np.ptp(values / counts) == 0:
        return float(mean), 0.0, n - 1.0
    weights = counts / counts.sum()
    shifts = (values / counts - mean) * weights / (1 - weights)
    error = math.sqrt((n - 1) / n * (shifts**2).sum())
    return float(mean), error, max(1 / (weights**2).sum() - 1, 1.0)


def _quantile(freedom: float) -> float:
    """By how many standard errors an interval reaches to each side."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _exact_ends(n_right: float, n: float) -> tuple[float, float]:
    """The interval of a share of n trials, whole or not."""
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = betaincinv(n_right, n - n_right + 1, tail) if n_right > 0 else 0.0
    high = betaincinv(n_right + 1, n - n_right, 1 - tail) if n_right < n else 1.0
    return float(low), float(high)


def summarise(
    targets: NDArray[np.int64], shares: NDArray[np.float32], classes: Sequence[str]
) -> dict[str, Any]:
    """All metrics of one kind of thing, clips or segments, as plain values.

    Args:
        targets: [N].
        shares: probabilities [N, n_classes].
        classes: their names in order.
    """
    predictions = shares.argmax(axis=1)
    matrix = confusion(targets, predictions, n_classes=len(classes))
    return {
        "accuracy": accuracy(targets, predictions),
        "balanced_accuracy": balanced_accuracy(matrix),
        "n": len(targets),
        "roc_area": roc_area(targets, shares),
        "recall": dict(zip(classes, recalls(matrix).tolist(), strict=True)),
        "confusion": matrix.tolist(),
    }
