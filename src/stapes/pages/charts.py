"""Numbers -> places on a chart, in percent of its sides, so that a page can stretch it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stapes.colours import PAGE_ACCENT

SIDE = 1000
"""Units along each side of the drawing of the lines."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Numbers along one side.

    Attributes:
        low: at the beginning.
        high: at the end.
        label: what is measured, with its unit.
        ticks: place in percent and words of each line across.
    """

    low: float
    high: float
    label: str
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Where a value stands, in percent; values beyond stand at the end."""
        return round(100 * min(max((value - self.low) / (self.high - self.low), 0), 1), 2)


@dataclass(frozen=True, slots=True)
class Line:
    """A curve: ``points`` of an SVG polyline, y downwards; no label, no place in the legend."""

    points: str
    colour: str
    label: str = ""
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Dot:
    """A point: places in percent from the left and from below, diameter in pixels."""

    left: float
    bottom: float
    colour: str
    size: float = 9.0
    label: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves and dots over two axes.

    Attributes:
        x: from left to right.
        y: from below upwards.
        lines: drawn first.
        dots: drawn over the lines.
        ratio: width by height.
    """

    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()
    ratio: float = 1.6


@dataclass(frozen=True, slots=True)
class Row:
    """One measured share with its interval, beside others.

    Attributes:
        name: of what was measured.
        text: the share in words.
        note: small print below.
        place: of the share, in percent of the axis; None if it was not measured.
        low: of the interval's lower end; None without interval.
        high: of the interval's upper end.
        ours: whether it is the one that the page is about.
    """

    name: str
    text: str
    note: str = ""
    place: float | None = None
    low: float | None = None
    high: float | None = None
    ours: bool = False


def make_axis(
    low: float, high: float, *, label: str = "", words: Callable[[float], str], n_ticks: int = 5
) -> Axis:
    """An axis with round numbers between two ends.

    >>> make_axis(0, 1, words=lambda v: f"{v:.1f}").ticks[:2]
    ((0.0, '0.0'), (20.0, '0.2'))
    """
    if not high > low:
        high = low + 1.0
    step = _round_step((high - low) / n_ticks)
    first = math.ceil(low / step - 1e-9)
    values = [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]
    bare = Axis(low, high, label, ())
    return Axis(low, high, label, tuple((bare.place(v), words(v)) for v in values))


def share_axis(low: float = 0.0, high: float = 1.0, *, label: str = "", n_ticks: int = 5) -> Axis:
    """An axis of shares from 0 to 1, in percent, widened to whole tenths (or hundredths)."""
    unit = 0.1 if high - low > 0.1 else 0.01
    low = max(0.0, math.floor(low / unit + 1e-9) * unit)
    high = min(1.0, math.ceil(high / unit - 1e-9) * unit)
    return make_axis(low, high, label=label, words=_percent, n_ticks=n_ticks)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}\N{NO-BREAK SPACE}%"


def _round_step(least: float) -> float:
    """The next number of 1, 2, 5, 10, ... that is not smaller."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= least * (1 - 1e-9))


def draw_line(
    points: Sequence[tuple[float, float]],
    *,
    x: Axis,
    y: Axis,
    colour: str = PAGE_ACCENT,
    label: str = "",
    dashed: bool = False,
) -> Line:
    """A curve through points, without those that a straight line passes anyway."""
    places = [(x.place(a), y.place(b)) for a, b in points if math.isfinite(a + b)]
    text = " ".join(
        f"{a * SIDE / 100:.0f},{SIDE - b * SIDE / 100:.0f}" for a, b in _corners(places)
    )
    return Line(text, colour, label, dashed)


def _corners(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points where a line turns, and its ends."""
    kept: list[tuple[float, float]] = []
    for point in points:
        while len(kept) > 1 and _straight(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return kept


def _straight(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on the way from a to c."""
    cross = (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0])
    ahead = (b[0] - a[0]) * (c[0] - b[0]) + (b[1] - a[1]) * (c[1] - b[1])
    return abs(cross) < 1e-6 and ahead >= 0


def dot(
    point: tuple[float, float],
    *,
    axes: tuple[Axis, Axis],
    colour: str = PAGE_ACCENT,
    size: float = 9.0,
    label: str = "",
) -> Dot:
    """A point on two axes (x, y)."""
    left, bottom = (axis.place(value) for axis, value in zip(axes, point, strict=True))
    return Dot(left, bottom, colour, size, label)
