"""What ours costs against length, hop, batch, filters, kernel and threads.

python benchmarks/scaling.py [--threads N] [--rounds N] [--longest SECONDS]

Training is a step with a ready batch of 32, inference 64 whole segments, unless the panel says
otherwise. Writes benchmarks/results/scaling.json and docs/images/scaling.png.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

import machine
import ours
import presenting
import sounds
import timing
from stapes.colours import ACCENT, CLASS_COLOURS
from stapes.config import ModelConfig
from stapes.drawing import WIDE, new_figure, styled
from stapes.segments import normalise
from timing import Call

SECONDS = (1, 10, 60, 600)
HOPS = (64, 128, 250, 500, 1000)
BATCHES = (2, 8, 32, 128, 256)
FILTERS = (5, 10, 16, 24, 32, 48, 64)
KERNELS = (3, 5, 9, 17, 33)
BATCH, SEGMENTS, HOP_RECORDING_SECONDS = 32, 64, 60.0
COLOURS = {
    "training": CLASS_COLOURS[1],
    "inference": ACCENT,
    "every 64 ms": ACCENT,
    "every second": CLASS_COLOURS[0],
}


@dataclass(frozen=True, slots=True)
class Sweep:
    """One number that is changed, and what is timed at each of its values.

    Attributes:
        title: for the panel.
        axis: what is changed, with its unit.
        calls: by the name of the line and the value.
    """

    title: str
    axis: str
    calls: Mapping[tuple[str, float], Call]


def main() -> None:
    parser = machine.arguments(__doc__, rounds=7)
    parser.add_argument("--longest", type=float, default=max(SECONDS))
    given = parser.parse_args()
    facts = machine.describe(threads=given.threads)
    found: dict[str, Any] = {}
    with machine.only(given.threads):
        for name, sweep in sweeps(given):
            seconds = timing.interleaved(sweep.calls, rounds=given.rounds)
            found[name] = {
                "title": sweep.title,
                "axis": sweep.axis,
                "points": [
                    {"line": line, "value": value, "seconds": timing.summary(seconds[line, value])}
                    for line, value in sweep.calls
                ],
            }
            tell(found[name])
    more = f"median of {given.rounds} rounds, bars: quartiles · both axes logarithmic"
    figure = chart(found, presenting.caption(facts, more=more))
    presenting.write("scaling", {"machine": facts, "sweeps": found}, figure)


def sweeps(given: Any) -> Iterator[tuple[str, Sweep]]:
    """One after the other, so that each finds the memory free."""
    classic = ModelConfig(ours.CLASSES)
    lengths = [seconds for seconds in SECONDS if seconds <= given.longest]
    calls = {
        (name, float(seconds)): timeline(classic, seconds, hop_length)
        for name, hop_length in (("every 64 ms", 1_024), ("every second", 16_000))
        for seconds in lengths
    }
    yield "length", Sweep("A recording", "length, seconds", calls)
    calls = {
        ("inference", float(hop)): timeline(classic, HOP_RECORDING_SECONDS, hop * 16)
        for hop in HOPS
    }
    yield "hop", Sweep("A minute of sound", "hop, milliseconds", calls)
    calls = {}
    for n in BATCHES:
        calls["training", float(n)] = training(classic, batch_size=n)
        calls["inference", float(n)] = inference(classic, n_segments=n)
    yield "batch", Sweep("Segments at once", "segments", calls)
    for name, field, values in (
        ("filters", "n_filters", FILTERS),
        ("kernel", "kernel_size", KERNELS),
    ):
        calls = {}
        for value in values:
            config = ModelConfig(ours.CLASSES, **{field: value})
            calls["training", float(value)] = training(config)
            calls["inference", float(value)] = inference(config)
        axis = "filters of every block" if name == "filters" else "taps of every filter"
        yield name, Sweep(name.capitalize(), axis, calls)
    step, answer = training(classic), inference(classic)
    calls = {}
    for n in range(1, given.threads + 1):
        calls["training", float(n)] = on_threads(step, n)
        calls["inference", float(n)] = on_threads(answer, n)
    yield "threads", Sweep("Threads", "threads", calls)


def timeline(config: ModelConfig, seconds: float, hop_length: int) -> Call:
    network, waveform = ours.random_network(config), sounds.changing(seconds)
    return lambda: ours.timeline(network, waveform, hop_length=hop_length)


def training(config: ModelConfig, *, batch_size: int = BATCH) -> Call:
    return ours.training_steps(config, ours.settings(batch_size=batch_size))[1]


def inference(config: ModelConfig, *, n_segments: int = SEGMENTS) -> Call:
    network = ours.random_network(config)
    noise = sounds.noise(n_segments * config.segment_seconds)
    segments = normalise(noise.reshape(n_segments, config.segment_length))
    return lambda: network.logits(segments)


def on_threads(call: Call, n: int) -> Call:
    def run() -> None:
        with machine.kept_to(n):
            call()

    return run


def tell(sweep: Mapping[str, Any]) -> None:
    values = sorted({point["value"] for point in sweep["points"]})
    lines = lines_of(sweep)
    head = (sweep["axis"], *(f"{value:g}" for value in values))
    rows = [
        (f"{name}, ms", *(presenting.milliseconds(line[v]["median"]) for v in values))
        for name, line in lines.items()
    ]
    presenting.show(sweep["title"], head, rows)


def lines_of(sweep: Mapping[str, Any]) -> dict[str, dict[float, Any]]:
    """Summaries of seconds by value by line."""
    lines: dict[str, dict[float, Any]] = {}
    for point in sweep["points"]:
        lines.setdefault(point["line"], {})[point["value"]] = point["seconds"]
    return lines


@styled
def chart(found: Mapping[str, Any], small_print: str) -> Figure:
    """Small multiples: milliseconds against what is changed."""
    figure = new_figure(width=WIDE, height=5.0)
    all_axes = figure.subplots(2, 3).ravel()
    for i, (axes, sweep) in enumerate(zip(all_axes, found.values(), strict=True)):
        _panel(axes, sweep)
        if i % 3 == 0:
            axes.set_ylabel("milliseconds", size=8)
    presenting.small(figure, small_print)
    return figure


def _panel(axes: Axes, sweep: Mapping[str, Any]) -> None:
    lines = lines_of(sweep)
    for name, line in lines.items():
        medians = 1e3 * np.array([times["median"] for times in line.values()])
        ends = [[times[key] for times in line.values()] for key in QUARTILES]
        spread = np.abs(1e3 * np.array(ends) - medians)
        axes.errorbar(
            list(line), medians, yerr=spread, color=COLOURS[name], marker="o", markersize=3.2
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.2, high * (high / low) ** 0.25)  # the names lie above
    values = sorted({value for line in lines.values() for value in line})
    axes.set_xticks(values, [f"{value:g}" for value in values], size=7.5)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(minor))
    axes.tick_params(axis="y", which="both", labelsize=7.5, length=0)
    axes.set_title(sweep["title"])
    axes.set_xlabel(sweep["axis"], size=8)
    presenting.finish(axes, grid="y")
    name_lines(axes, lines)


QUARTILES: Sequence[str] = ("lower_quartile", "upper_quartile")


def minor(value: float, _: int) -> str:
    """Twos and fives between the powers of ten.

    >>> minor(20.0, 0), minor(30.0, 0)
    ('20', '')
    """
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def name_lines(axes: Axes, lines: Mapping[str, Mapping[float, Any]]) -> None:
    """The lines' names in their colours, in the upper corner where the lines are low."""
    if len(lines) < 2:
        return
    medians = [[times["median"] for times in line.values()] for line in lines.values()]
    falling = medians[0][0] > medians[0][-1]
    for i, name in enumerate(lines):
        axes.text(
            0.97 if falling else 0.03,
            0.97 - 0.09 * i,
            name,
            transform=axes.transAxes,
            color=COLOURS[name],
            weight="bold",
            size=8,
            va="top",
            ha="right" if falling else "left",
            bbox=presenting.GROUND,
        )


if __name__ == "__main__":
    main()
