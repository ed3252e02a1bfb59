"""Accuracy of every preset in grouped cross-validation, with its time and memory.

python benchmarks/accuracy.py cats_dogs|esc10 DATA [--presets classic small large] [--seeds 3]
    [--threads 1] [--leaks allow]

Each preset is cross-validated in a process of its own, so that its memory can be told. A run that
was ended goes on where it was if the same command is given again: its trainings lie in
build/crossval, in a folder for each recipe, until they are done.

Writes benchmarks/results/accuracy_SET.json (accuracy_SET_leaks.json where leaks are allowed) and
docs/images/accuracy_SET.png.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import machine
import presenting
import tables
from shipped import place, without_lists
from stapes.colours import ACCENT, INK, LINE, MUTED
from stapes.config import (
    PRESETS,
    ModelConfig,
    TrainingConfig,
    as_dict,
    preset_sizes,
    preset_training,
)
from stapes.drawing import WIDE, new_figure, styled

STAPES = Path(sys.executable).parent / "stapes"

TICKS = {"1,000": 1e3, "10,000": 1e4, "100,000": 1e5, "1 M": 1e6, "10 M": 1e7, "100 M": 1e8}
TITLES = {"cats_dogs": "cats and dogs", "esc10": "ESC-10"}
N_CLASSES = {"cats_dogs": 2, "esc10": 10}
ACDNET = "Mohaimenuzzaman et al. 2023, doi:10.1016/j.patcog.2022.109025"

PUBLISHED: dict[str, dict[str, tuple[float, float, str]]] = {
    "cats_dogs": {},
    "esc10": {
        "Micro-ACDNet": (131e3, 0.9625, ACDNET),
        "ACDNet": (4.74e6, 0.9665, ACDNET),
        "EnvNet-v2": (101e6, 0.914, "Tokozume et al. 2018, arXiv:1711.10282"),
    },
}
"""Parameters, share of clips right and source of what others report on the same recordings."""

HUMAN = {"esc10": (0.957, "people: Piczak 2015, doi:10.1145/2733373.2806390")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=sorted(PUBLISHED))
    parser.add_argument("data")
    parser.add_argument("--presets", nargs="*", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--leaks", default="refuse", choices=("refuse", "allow"))
    given = parser.parse_args()
    name = f"accuracy_{given.set}" + "_leaks" * (given.leaks == "allow")
    path = presenting.RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {"presets": {}}
    facts = machine.describe(threads=given.threads)
    for preset in given.presets:
        if not complete(found, preset, seeds=given.seeds):
            measured = crossvalidated(given, preset, name=f"{name}_{preset}")
            rows = found["presets"] | {preset: measured | {"machine": facts}}
            found["presets"] = {name: rows[name] for name in PRESETS if name in rows}
        presenting.write(name, found, chart(given.set, found))
        presenting.say(tables.ladder_table(name))


def complete(found: Mapping[str, Any], preset: str, *, seeds: int) -> bool:
    """Whether a preset was measured with these settings before; others begin anew.

    What no setting says, such as how segments are drawn, is not seen: to measure that anew, take
    the row out of the results.
    """
    known = found["presets"].get(preset)
    if known is None:
        return False
    config = ModelConfig(tuple(known["classes"]), **preset_sizes(preset))
    recipe = TrainingConfig(**preset_training(preset, n_classes=len(config.classes)))
    wanted = seeds, as_dict(recipe), config.n_parameters, config.n_multiply_adds
    numbers = known["settings"], known["parameters"], known["multiply_adds"]
    return (len(known["seeds"]), *numbers) == wanted


def crossvalidated(given: argparse.Namespace, preset: str, *, name: str) -> dict[str, Any]:
    """What ``stapes crossval`` says of one preset, and the most memory that it took."""
    out, going_on = place(name, preset, n_classes=N_CLASSES[given.set])
    json_path = out.with_suffix(".json")
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(str(STAPES), "crossval", given.data, "--preset", preset, "--seeds", str(given.seeds)),
        *("--out", str(out), "--json", str(json_path), "--leaks", given.leaks, "--no-by-file"),
        *("--threads", str(given.threads), "--resume" if going_on else "--overwrite"),
    ]
    presenting.say(" ".join(command))
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 3):
        raise SystemExit(
            f"{preset}: stapes crossval ended with {os.waitstatus_to_exitcode(status)}"
        )
    metrics = json.loads(json_path.read_text())
    classes = tuple(metrics["classes"])
    config = ModelConfig(classes, **preset_sizes(preset))
    return without_lists(metrics) | {
        "multiply_adds": config.n_multiply_adds,
        "most_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


# ---- showing --------------------------------------------------------------------------------


@styled
def chart(name: str, found: Mapping[str, Any]) -> Figure:
    """Share of clips right against parameters, ours with intervals, beside what others report."""
    figure = new_figure(width=WIDE, height=3.6)
    axes = figure.subplots()
    for preset, result in found["presets"].items():
        accuracy = result["clips"]["accuracy"]
        spread = [[abs(end - accuracy)] for end in result["clips"]["interval"]]
        at = result["parameters"]
        axes.errorbar(at, accuracy, yerr=spread, fmt="o", color=ACCENT, capsize=3, markersize=7)
        _name(axes, at, accuracy, f"{preset}\n{at:,}", bold=True)
    for other, (parameters, accuracy, _) in PUBLISHED[name].items():
        axes.plot(parameters, accuracy, "D", color=MUTED, markersize=6)
        _name(axes, parameters, accuracy, other)
    _levels(axes, name, found)
    axes.set_xscale("log")
    widest = 5e8 if PUBLISHED[name] else 1e6
    axes.set_xlim(1e3, widest)
    ticks = {text: value for text, value in TICKS.items() if value <= widest}
    axes.set_xticks(list(ticks.values()), list(ticks))
    axes.minorticks_off()
    axes.set_xlabel("parameters (logarithmic)", loc="left", size=8)
    axes.set_ylabel("share of clips right", size=8)
    axes.set_title(f"Accuracy against size: {TITLES[name]}")
    presenting.finish(axes, grid="y")
    sources = dict.fromkeys(source for *_, source in PUBLISHED[name].values())
    presenting.small(figure, " · ".join(["lines: 95 % intervals over sources", *sources]))
    return figure


def _levels(axes: Axes, name: str, found: Mapping[str, Any]) -> None:
    """What needs no parameters to be counted: people, and the best simple rule."""
    rows = next(iter(found["presets"].values())).get("baselines", [])
    best = max(rows, key=lambda row: row["clips"]["accuracy"])
    levels = {best["name"]: best["clips"]["accuracy"]}
    if name in HUMAN:
        levels[HUMAN[name][1].split(":")[0]] = HUMAN[name][0]
    for label, level in levels.items():
        axes.axhline(level, color=LINE, linewidth=1.2, linestyle="--", zorder=0)
        right = axes.get_yaxis_transform()
        axes.text(0.99, level, label, size=8, color=MUTED, va="bottom", ha="right", transform=right)


def _name(axes: Axes, x: float, y: float, text: str, *, bold: bool = False) -> None:
    axes.annotate(
        text,
        (x, y),
        (8, -4 if bold else 0),
        textcoords="offset points",
        size=8,
        va="top" if bold else "center",
        weight="bold" if bold else "normal",
        color=INK if bold else MUTED,
    )


if __name__ == "__main__":
    main()
