"""Pure metrics of clips and segments, with intervals. Nothing here reads files or trains."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_RESAMPLES = 2000
CONFIDENCE = 0.95

MOST_DRAWN = 2**22
"""Sources drawn at a time: bounds the memory."""


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
    """95 % interval of an accuracy by the percentile bootstrap over sources.

    Clips and segments of one source stand or fall together, so whole sources are drawn with
    replacement (Efron and Tibshirani 1993, An Introduction to the Bootstrap). Where all sources are
    right alike, such as all of them, and every drawing the same, the exact interval of so many
    sources takes its place (Clopper and Pearson 1934, "The use of confidence or fiducial limits").

    Args:
        right: whether each clip or segment was right [N].
        sources: the source of each [N].

    Returns:
        Lower and upper end; (nan, nan) of nothing.
    """
    sums = _sum_by_source(np.stack([right, np.ones(len(right))], axis=1), sources)
    shares = sums[:, 0] / sums[:, 1]
    if len(sums) and np.ptp(shares) == 0:
        return _exact_ends(shares[0] * len(sums), len(sums))
    totals = _resample(sums)
    return _ends(totals[:, 0] / totals[:, 1])


def compare(
    right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], sources: Sequence[str]
) -> dict[str, Any]:
    """Whether a is more often right than b on the same clips.

    The interval is that of the paired bootstrap over sources. The p-value is exact and takes
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
    totals = _resample(sums)
    return {
        "accuracy": float(ahead.mean()),
        "interval": list(_ends(totals[:, 0] / totals[:, 1])),
        "p_value": _randomisation_test(sums[:, 0].astype(np.int64)),
    }


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


def _resample(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over sources that are drawn with replacement: [n_sources, K] -> [N_RESAMPLES, K]."""
    if not len(sums):
        return np.full((N_RESAMPLES, sums.shape[1]), np.nan)
    rng = np.random.default_rng(0)
    totals = []
    n_at_once = max(MOST_DRAWN // len(sums), 1)
    for start in range(0, N_RESAMPLES, n_at_once):
        n_resamples = min(n_at_once, N_RESAMPLES - start)
        drawn = rng.integers(len(sums), size=(n_resamples, len(sums)))
        totals.append(np.stack([column[drawn].sum(axis=1) for column in sums.T], axis=1))
    return np.concatenate(totals)


def _exact_ends(n_right: float, n: int) -> tuple[float, float]:
    """The interval of a share of n trials, whole or not."""
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = betaincinv(n_right, n - n_right + 1, tail) if n_right > 0 else 0.0
    high = betaincinv(n_right + 1, n - n_right, 1 - tail) if n_right < n else 1.0
    return float(low), float(high)


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
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
