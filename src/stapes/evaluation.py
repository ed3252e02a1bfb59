"""Pure metrics of clips and segments, with intervals. Nothing here reads files or trains."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_RESAMPLES = 2000
CONFIDENCE = 0.95


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
    """False and true positive rates of one class at every threshold: [N], [N, C] -> [M], [M]."""
    from sklearn.metrics import roc_curve as rates

    false_positives, true_positives, _ = rates(
        targets == index, shares[:, index], drop_intermediate=False
    )
    return false_positives, true_positives


def interval(
    right: NDArray[np.bool_], sources: Sequence[str], *, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of an accuracy by the percentile bootstrap over sources.

    Clips of one source stand or fall together, so whole sources are drawn with replacement
    (Efron and Tibshirani 1993, An Introduction to the Bootstrap).

    Args:
        right: whether each clip was right [N].
        sources: the source of each clip [N].
        seed: of the resampling.

    Returns:
        Lower and upper end; (nan, nan) of nothing.
    """
    if not len(right):
        return float("nan"), float("nan")
    _, group = np.unique(np.asarray(sources), return_inverse=True)
    n_right = np.bincount(group, weights=right)
    n_clips = np.bincount(group)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(n_clips), size=(N_RESAMPLES, len(n_clips)))
    accuracies = n_right[drawn].sum(axis=1) / n_clips[drawn].sum(axis=1)
    low, high = np.quantile(accuracies, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
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
