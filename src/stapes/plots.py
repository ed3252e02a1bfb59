"""Arrays -> figures of data sets and training runs. Computes nothing; the look is ``drawing``'s.

The figures of one clip are in ``clip_plots``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from stapes.drawing import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    WIDE,
    class_colour,
    fading,
    hide_frame,
    is_narrow,
    new_figure,
    printable,
    styled,
)
from stapes.inspection import envelope
from stapes.segments import Waveform

Rates = tuple[NDArray[np.float64], NDArray[np.float64]]


@styled
def plot_examples(
    examples: Mapping[str, Sequence[tuple[str, Waveform]]],
    *,
    sample_rate: int,
    width: float = WIDE,
) -> Figure:
    """Waveforms of recordings, a row of small pictures for each class.

    Args:
        examples: for each class in order its recordings, as (name, [T] within -1 and 1).
        sample_rate: Hz.
        width: inches.
    """
    n_columns = min(2 if is_narrow(width) else 4, max(map(len, examples.values()), default=1))
    figure = new_figure(width=width, height=max(1, len(examples)) * 1.25 + 0.35)
    grid = figure.subplots(max(1, len(examples)), n_columns, squeeze=False, sharey=True)
    for row, (index, (label, recordings)) in zip(grid, enumerate(examples.items()), strict=False):
        for axes in row[len(recordings) :]:
            axes.set_visible(False)
        for axes, (name, waveform) in zip(row, recordings, strict=False):
            _draw_waveform(axes, waveform, sample_rate=sample_rate, colour=class_colour(index))
            axes.set_title(printable(name, limit=22), fontsize=7.5, weight="normal", color=MUTED)
        row[0].set_ylabel(printable(label, limit=14), color=class_colour(index), weight="bold")
    for axes in grid[-1]:
        axes.set_xlabel("seconds")
    return figure


def _draw_waveform(axes: Axes, waveform: Waveform, *, sample_rate: int, colour: str) -> None:
    """One recording at full scale; its axis ends where the recording ends."""
    low, high = envelope(waveform, n_columns=400)
    seconds = np.linspace(0, len(waveform) / sample_rate, len(low))
    axes.fill_between(seconds, low, high, color=colour, linewidth=0.5)
    axes.set(xlim=(0, seconds[-1]), ylim=(-1.05, 1.05), yticks=[-1, 0, 1])
    axes.xaxis.set_major_locator(MaxNLocator(4))


@styled
def plot_history(
    history: Sequence[Mapping[str, Any]], *, best_epoch: int | None = None, width: float = WIDE
) -> Figure:
    """Loss, accuracy and learning rate over the epochs, the kept epoch marked.

    Args:
        history: rows with epoch, loss and accuracy, and where measured learning_rate,
            validation_loss and validation_accuracy.
        best_epoch: the epoch that was kept.
        width: inches.
    """
    narrow = is_narrow(width)
    figure = new_figure(width=width, height=5.2 if narrow else 2.7)
    first, second = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
    _draw_curves(first, history, "loss", best_epoch)
    _draw_curves(second, history, "accuracy", best_epoch)
    second.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    second.set_ylim(top=1.0)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2 if narrow else 4)
    return figure


def _draw_curves(
    axes: Axes, history: Sequence[Mapping[str, Any]], name: str, best_epoch: int | None
) -> None:
    for key, colour, label, style in (
        (name, MUTED, "training segments", "--"),
        (f"validation_{name}", ACCENT, "validation segments", "-"),
    ):
        rows = [row for row in history if row.get(key) is not None]
        epochs, values = [row["epoch"] for row in rows], [row[key] for row in rows]
        marker = "o" if len(rows) == 1 else None
        axes.plot(epochs, values, style, color=colour, label=label, linewidth=1.8, marker=marker)
        for epoch, value in zip(epochs, values, strict=True):
            if epoch == best_epoch and key.startswith("validation"):
                axes.plot(
                    epoch, value, "o", color=ACCENT, markersize=7, label=f"kept: epoch {epoch}"
                )
    axes.set(title=name, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(axis="y")


@styled
def plot_learning_rate(history: Sequence[Mapping[str, Any]], *, width: float = WIDE) -> Figure:
    """The learning rate at the end of every epoch."""
    figure = new_figure(width=width, height=1.7)
    axes = figure.subplots()
    rows = [row for row in history if row.get("learning_rate") is not None]
    epochs, rates = [row["epoch"] for row in rows], [row["learning_rate"] for row in rows]
    axes.plot(epochs, rates, color=ACCENT, linewidth=1.8, marker="o" if len(rows) == 1 else None)
    axes.set(title="learning rate", xlabel="epoch")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(axis="y")
    return figure


@styled
def plot_confusion(
    matrix: Sequence[Sequence[int]], classes: Sequence[str], *, width: float = WIDE
) -> Figure:
    """How often each class (row) was called which (column); colours are shares of the row.

    Args:
        matrix: counts [n_classes][n_classes].
        classes: their names in order.
        width: inches.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    n_classes = len(classes)
    side = min(width, 3.4 if n_classes < 4 else 1.6 + 0.5 * n_classes)
    figure = new_figure(width=side, height=side * 0.95 if n_classes < 4 else side)
    axes = figure.subplots()
    axes.imshow(shares, cmap=fading(ACCENT), vmin=0, vmax=1)
    limit = 14 if is_narrow(width) else 22
    names = [printable(name, limit=limit) for name in classes]
    rotation = 0 if n_classes < 4 and max(map(len, names)) < 9 else 90
    axes.set_xticks(range(n_classes), names, rotation=rotation)
    axes.set_yticks(range(n_classes), names, rotation=0)
    axes.set(xlabel="heard as", ylabel="really")
    axes.xaxis.set_label_position("top")
    axes.tick_params(labeltop=True, labelbottom=False, labelcolor=INK)
    hide_frame(axes)
    size = 14 if n_classes < 4 else 8 if is_narrow(width) else 9
    for (i, j), count in np.ndenumerate(counts):
        colour = "#fdfdfd" if shares[i, j] > 0.55 else INK if count else MUTED
        axes.text(j, i, f"{count:.0f}", ha="center", va="center", color=colour, fontsize=size)
    return figure


@styled
def plot_roc(
    curves: Mapping[str, Rates],
    *,
    areas: Mapping[str, float] | None = None,
    classes: Sequence[str] = (),
    width: float = WIDE,
) -> Figure:
    """True against false positive rate at every threshold.

    Args:
        curves: for each class its false and true positive rates.
        areas: area under each curve, where known.
        classes: all classes in order, where some have no curve; they keep their colours.
        width: inches.
    """
    areas, classes = areas or {}, list(classes or curves)
    side = min(width, 3.9)
    lines = -(-len(curves) // (1 if side < WIDE / 2 else 2))
    figure = new_figure(width=side, height=side + 0.19 * lines)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=LINE, linestyle=":", label="guessing")
    for label, (false_positives, true_positives) in curves.items():
        index = classes.index(label)
        area = f"  {areas[label]:.3f}" if label in areas else ""
        colour = ACCENT if len(curves) == 1 else class_colour(index)
        style = "-" if index < 5 else "--"
        name = printable(label, limit=16) + area
        axes.plot(false_positives, true_positives, style, color=colour, linewidth=1.8, label=name)
    axes.set(xlabel="false alarms (share of the others)", ylabel="found (share of the class)")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid()
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure


@styled
def plot_recall(
    recall: Mapping[str, float], *, counts: Mapping[str, int] | None = None, width: float = WIDE
) -> Figure:
    """Share of each class that was found.

    Args:
        recall: for each class in order; nan where there was nothing to find.
        counts: how many clips of each class there were.
        width: inches.
    """
    figure = new_figure(width=width, height=0.55 + 0.32 * len(recall))
    axes = figure.subplots()
    for row, (label, share) in enumerate(recall.items()):
        known = np.isfinite(share)
        axes.barh(row, 1, height=0.62, color=LINE, alpha=0.5)
        axes.barh(row, share if known else 0, height=0.62, color=class_colour(row))
        text = f"{share:.0%}" if known else "none to find"
        text += f" of {counts[label]}" if known and counts and label in counts else ""
        axes.text(1.01, row, text, va="center")
    limit = 14 if is_narrow(width) else 24
    axes.set_yticks(range(len(recall)), [printable(label, limit=limit) for label in recall])
    axes.set(xlim=(0, 1), ylim=(len(recall) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.tick_params(left=False, axis="y", labelcolor=INK)
    axes.spines[:].set_visible(False)
    return figure
