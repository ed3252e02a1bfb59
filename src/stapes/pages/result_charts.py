"""Results -> charts: what a protocol measured, laid out to be drawn; measures nothing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from stapes.colours import PAGE_ACCENT, PAGE_LINE, PAGE_MUTED, class_colour
from stapes.pages.charts import Axis, Chart, Dot, Row, dot, draw_line, make_axis, share_axis
from stapes.pages.verdict import beaten, better, part
from stapes.pages.wording import SPACE, chance, count, known, percent, points, span

MAX_CURVES = 6
"""Curves of one colour each in a chart; of more classes the worst are shown in colour."""

MAX_ROWS = 60
"""Rows of a list of measurements."""

Metrics = Mapping[str, Any]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rows:
    """Measured shares with intervals on one axis."""

    axis: Axis
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """How many clips got a probability within a range: places in percent, height of the fullest."""

    left: float
    width: float
    height: float
    n: int


def comparison(metrics: Metrics) -> Rows | None:
    """The model beside the baselines and beside what a split by file says, on one axis."""
    baselines = [b for b in metrics.get("baselines") or () if part(b, "clips")]
    naive = part(metrics, "by_file", "clips")
    if not baselines and not naive:
        return None
    measured = [("this model", part(metrics, "clips"), "", True)]
    measured += [(b["name"], b["clips"], _against(b), False) for b in baselines]
    if naive:
        note = "the same model, sources on both sides of the split: it may know what it judges"
        measured.append(("this model, split by file", naive, note, False))
    return _rows(measured)


def _against(baseline: Metrics) -> str:
    """How the model compares with a baseline, in words."""
    difference = part(baseline, "difference")
    if not known(difference.get("accuracy")):
        return ""
    side = "behind" if difference["accuracy"] >= 0 else "ahead"
    interval, p_value = difference.get("interval"), chance(difference.get("p_value"))
    said = f"{points(difference['accuracy'])} {side}"
    if interval and all(map(known, interval)):
        low, high = sorted(interval) if side == "behind" else sorted(-end for end in interval)
        said += f" ({span([low, high]).removesuffix(f'{SPACE}%')})"
    said += f", {p_value}" if p_value else ""
    if beaten(baseline):
        return said
    return said + (": better than this model" if better(baseline) else ": too close to call")


def repeats(metrics: Metrics, key: str, name: str) -> Rows | None:
    """Folds or seeds beside each other."""
    found = (metrics.get(key) or ())[:MAX_ROWS]
    return _rows([(f"{name} {r[name]}", part(r, "clips"), _of(r), False) for r in found], n_ticks=3)


def _of(row: Metrics) -> str:
    segments = part(row, "segments")
    said = count(part(row, "clips", "n") or None, "clip")
    return f"{said}; segments {percent(segments.get('accuracy'))}" if segments else said


def _rows(measured: Sequence[tuple[str, Metrics, str, bool]], *, n_ticks: int = 5) -> Rows | None:
    """Rows on an axis that just holds them all."""
    ends = [
        end
        for _, clips, _, _ in measured
        for end in (clips.get("accuracy"), *(clips.get("interval") or ()))
        if known(end)
    ]
    if not ends:
        return None
    axis = share_axis(min(ends), max(*ends, 1.0), label="clips right", n_ticks=n_ticks)
    return Rows(axis, tuple(_row(axis, *row) for row in measured))


def _row(axis: Axis, name: str, clips: Metrics, note: str, ours: bool) -> Row:
    accuracy, interval = clips.get("accuracy"), clips.get("interval") or ()
    low, high = map(axis.place, interval) if interval and all(map(known, interval)) else (None,) * 2
    place = axis.place(accuracy) if known(accuracy) else None
    return Row(name, percent(accuracy), note, place, low, high, ours)


def roc(metrics: Metrics) -> Chart | None:
    """Finding against false alarms; of many classes the worst in colour, the others in grey."""
    curves = {label: _rates(rates) for label, rates in part(metrics, "roc").items()}
    curves = {label: curve for label, curve in curves.items() if len(curve) > 1}
    if not curves:
        return None
    classes = list(metrics.get("classes") or curves)
    x = share_axis(label="false alarms (share of the others)")
    y = share_axis(label="found (share of the class)")
    worst = sorted(curves, key=lambda label: area(curves[label]))[:MAX_CURVES]
    lines = [
        draw_line([(0, 0), (1, 1)], x=x, y=y, colour=PAGE_MUTED, dashed=True, label="guessing")
    ]
    for label in sorted(curves, key=lambda label: label in worst):
        index = classes.index(label) if label in classes else 0
        colour = PAGE_ACCENT if len(curves) == 1 else class_colour(index)
        said = f"{label}: area {area(curves[label]):.3f}"
        shown = label in worst
        lines.append(
            draw_line(curves[label], x=x, y=y, colour=colour if shown else PAGE_LINE,
                      label=said if shown else "", dashed=shown and index >= 10)
        )  # fmt: skip
    return Chart(x, y, tuple(lines), ratio=1.0)


def _rates(rates: Metrics) -> list[Point]:
    pairs = zip(rates["false_positives"], rates["true_positives"], strict=True)
    return [(x, y) for x, y in pairs if known(x) and known(y)]


def area(curve: Sequence[Point]) -> float:
    """The area under a curve by trapezoids.

    >>> area([(0, 0), (0, 1), (1, 1)])
    1.0
    """
    return sum((c - a) * (b + d) / 2 for (a, b), (c, d) in pairwise(curve))


def reliability(metrics: Metrics) -> Chart | None:
    """Stated probability against the share that was right, before and after calibration."""
    calibration = part(metrics, "calibration")
    before, after = (_filled(calibration.get(key)) for key in ("before", "after"))
    if not after and not before:
        return None
    axis = _confidence_axis([*before, *after])
    y = share_axis(label="clips that were right")
    perfect = draw_line(
        [(axis.low, axis.low), (axis.high, axis.high)], x=axis, y=y, colour=PAGE_MUTED, dashed=True,
        label="perfect: right as often as stated",
    )  # fmt: skip
    most = max(b["n"] for b in [*before, *after])
    dots = [
        dot(
            (b["confidence"], b["accuracy"]),
            axes=(axis, y),
            colour=colour,
            size=9 + 11 * math.sqrt(b["n"] / most),
            label=words if b is bins[-1] else "",
        )
        for bins, colour, words in (
            (before, PAGE_MUTED, "as trained"),
            (after, PAGE_ACCENT, "calibrated"),
        )
        for b in bins
    ]
    return Chart(axis, y, (perfect,), tuple(dots), ratio=1.25)


def bins(metrics: Metrics) -> tuple[Bin, ...]:
    """How many clips are in each bin after calibration, along the axis of :func:`reliability`."""
    calibration = part(metrics, "calibration")
    before, after = (_filled(calibration.get(key)) for key in ("before", "after"))
    axis, most = _confidence_axis([*before, *after]), max((b["n"] for b in after), default=1)
    return tuple(
        Bin(axis.place(b["low"]), axis.place(b["high"]) - axis.place(b["low"]),
            round(100 * b["n"] / most, 2), b["n"])
        for b in after
    )  # fmt: skip


def _filled(bins: Sequence[Metrics] | None) -> list[Metrics]:
    return [b for b in bins or () if b.get("n") and known(b.get("confidence"))]


def _confidence_axis(bins: Sequence[Metrics]) -> Axis:
    low = min((b["low"] for b in bins), default=0.0)
    return share_axis(low, label="probability that it stated")


def acceptance(metrics: Metrics) -> Chart | None:
    """Foreign sounds taken for a class against own sounds kept, with the point that was chosen."""
    found = part(metrics, "acceptance")
    foreign = part(found, "foreign")
    curve = [(x, y) for x, y in foreign.get("curve") or () if known(x) and known(y)]
    if len(curve) < 2:
        return None
    highest = max(y for _, y in curve)
    x = share_axis(label="own sounds kept")
    y = share_axis(0, max(highest, 0.1), label="foreign sounds taken for a class")
    dots: tuple[Dot, ...] = ()
    if known(found.get("coverage")) and known(foreign.get("called_after")):
        point = (found["coverage"], foreign["called_after"])
        dots = (dot(point, axes=(x, y), size=13, label="chosen"),)
    return Chart(x, y, (draw_line(sorted(curve), x=x, y=y),), dots, ratio=1.5)


def learning(history: Sequence[Metrics], name: str, best_epoch: int | None) -> Chart | None:
    """Loss or accuracy over the epochs, of training and of validation, the kept epoch marked."""
    series = {
        key: [(row["epoch"], row[key]) for row in history if known(row.get(key))]
        for key in (name, f"validation_{name}")
    }
    values = [value for points in series.values() for _, value in points]
    if not values:
        return None
    last = max(row["epoch"] for row in history)
    x = make_axis(min(1, last - 1), last, label="epoch", words=_whole)
    y = _learning_axis(name, values)
    trained, tried = series.values()
    lines = [
        draw_line(trained, x=x, y=y, colour=PAGE_MUTED, dashed=True, label="training segments")
    ]
    dots: tuple[Dot, ...] = ()
    if tried:
        lines.append(draw_line(tried, x=x, y=y, label="validation segments"))
        dots = tuple(
            dot((epoch, value), axes=(x, y), size=11, label=f"kept: epoch {epoch}")
            for epoch, value in tried
            if epoch == best_epoch
        )
    return Chart(x, y, tuple(lines), dots, ratio=1.5)


def _whole(value: float) -> str:
    """A whole number; nothing between two."""
    return f"{value:.0f}" if abs(value - round(value)) < 1e-6 else ""


def _learning_axis(name: str, values: Sequence[float]) -> Axis:
    if name == "accuracy":
        return share_axis(min(values), max(*values, 1.0), label="segments right")
    return make_axis(0, max(values), label=name, words=lambda value: f"{value:.3g}")
