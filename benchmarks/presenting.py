"""Tables on the terminal, JSON files, and charts of what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from stapes.colours import ACCENT, INK, LINE, MUTED, PAPER
from stapes.drawing import WIDE, new_figure, styled
from stapes.files import replacing, write_json

RESULTS = Path(__file__).parent / "results"
IMAGES = Path(__file__).parent.parent / "docs" / "images"

PEER = "#b4bdc9"
"""The colour of what ours is compared with."""

GROUND = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}
"""Behind text that would else lie on grid lines."""

LEAST_COLUMNS = 160
"""Tables are not squeezed where the terminal is narrow or none."""

ROW_INCHES, PANEL_INCHES = 0.24, 0.5

Summaries = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars that share one axis.

    Attributes:
        title: what was measured.
        unit: of the axis.
        rows: value, and the text behind the bar, by name; from the top.
        spread: lower and upper quartile by name, where there are.
        ours: begins the names of the bars that stand out.
    """

    title: str
    unit: str
    rows: Mapping[str, tuple[float, str]]
    spread: Mapping[str, tuple[float, float]]
    ours: str = "stapes"


def say(text: str) -> None:
    """One line on the terminal, at once."""
    Console(highlight=False, soft_wrap=True).print(text)


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on the terminal: names left, numbers right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        style = "bold" if row[0].startswith("stapes") else None
        table.add_row(*row, style=style)
    Console(width=max(Console().width, LEAST_COLUMNS)).print(table)


def show_times(title: str, results: Summaries) -> None:
    """A table of milliseconds and ratios; see :func:`timing.summaries`."""
    head = ("", "median ms", "quartiles", "from", "to", "times ours", "quartiles of that")
    rows = []
    for name, result in results.items():
        times, ratio = result["seconds"], result["times_ours"]
        quartiles = [f"{milliseconds(times[key])}" for key in ("lower_quartile", "upper_quartile")]
        ends = [milliseconds(times[key]) for key in ("min", "max")]
        ratios = [f"{ratio[key]:.2f}" for key in ("lower_quartile", "upper_quartile")]
        middle = f"{ratio['median']:.2f}"
        spread = " to ".join(ratios)
        rows.append(
            (name, milliseconds(times["median"]), " to ".join(quartiles), *ends, middle, spread)
        )
    show(title, head, rows)


def milliseconds(seconds: float) -> str:
    """Three digits of it, as a number of milliseconds.

    >>> milliseconds(0.0123456), milliseconds(1.234567)
    ('12.3', '1,235')
    """
    value = seconds * 1e3
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def time_panel(title: str, results: Summaries) -> Panel:
    """Medians in milliseconds, the slowest at the top, with how many times ours behind."""
    order = sorted(results, key=lambda name: -results[name]["seconds"]["median"])
    rows, spread = {}, {}
    for name in order:
        times, ratio = results[name]["seconds"], results[name]["times_ours"]["median"]
        text = f"{milliseconds(times['median'])} ms"
        if not name.startswith("stapes"):
            text += f"  ·  {ratio:.1f} × stapes"
        rows[name] = (times["median"] * 1e3, text)
        spread[name] = (times["lower_quartile"] * 1e3, times["upper_quartile"] * 1e3)
    return Panel(title, "milliseconds", rows, spread)


def caption(machine: Mapping[str, Any], *, more: str = "") -> str:
    """The small print of a chart."""
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    words = (machine["processor"], threads, f"{machine['kernels']} kernels", more)
    return " · ".join(word for word in words if word)


@styled
def bar_chart(panels: Sequence[Panel], *, small_print: str) -> Figure:
    """Horizontal bars, panel below panel, each from zero."""
    heights = [len(panel.rows) * ROW_INCHES + PANEL_INCHES for panel in panels]
    figure = new_figure(width=WIDE, height=sum(heights) + 0.35)
    all_axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, panel in zip(all_axes, panels, strict=True):
        _bars(axes, panel)
    small(figure, small_print)
    return figure


def _bars(axes: Axes, panel: Panel) -> None:
    names = list(panel.rows)
    values = [value for value, _ in panel.rows.values()]
    colours = [ACCENT if name.startswith(panel.ours) else PEER for name in names]
    axes.barh(names, values, color=colours, height=0.68)
    ends = [max(value, *panel.spread.get(name, (0, 0))) for name, (value, _) in panel.rows.items()]
    for row, (name, end) in enumerate(zip(names, ends, strict=True)):
        if name in panel.spread:
            axes.plot(panel.spread[name], (row, row), color=INK, linewidth=1.1)
        weight = "bold" if name.startswith(panel.ours) else "normal"
        axes.text(
            end + 0.01 * max(ends),
            row,
            panel.rows[name][1],
            va="center",
            weight=weight,
            size=8.5,
            bbox=GROUND,
        )
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= max(ends)])
    axes.set_xlim(0, 1.42 * max(ends))
    axes.invert_yaxis()
    axes.set_title(panel.title)
    axes.set_xlabel(panel.unit, loc="left", size=8)
    finish(axes, grid="x")
    for label in axes.get_yticklabels():
        if label.get_text().startswith(panel.ours):
            label.set(color=INK, weight="bold")


def finish(axes: Axes, *, grid: str) -> None:
    """Faint lines across one axis, and no frame."""
    axes.grid(axis=grid, color=LINE)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def small(figure: Figure, text: str) -> None:
    """Small print below everything."""
    figure.supxlabel(text, x=0.01, ha="left", size=7, color=MUTED)


def write(name: str, results: Mapping[str, Any], figure: Figure) -> None:
    """The results as JSON and the chart as PNG, and say where."""
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"{name}.json", dict(results))
    say(f"written: {RESULTS.name}/{name}.json")
    save(name, figure)


def save(name: str, figure: Figure) -> None:
    """The chart as PNG."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with replacing(IMAGES / f"{name}.png") as file:
        figure.savefig(file, format="png", metadata={"Software": None})
    say(f"written: {IMAGES.name}/{name}.png")
