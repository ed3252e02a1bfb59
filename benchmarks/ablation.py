"""What each ingredient of the recipe is worth, and how many recordings are enough.

python benchmarks/ablation.py DATA [--preset classic] [--seeds 1] [--parts ingredients clips]

Grouped cross-validation with one ingredient changed at a time, and with fewer recordings to learn
from. Every training is written when it is done, and not done again: the same command goes on where
it was ended.

Writes benchmarks/results/ablation.json and docs/images/learning_curve_PRESET.png.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import presenting
from stapes import evaluation, experiment
from stapes.colours import ACCENT
from stapes.config import ModelConfig, TrainingConfig, preset_sizes, preset_training
from stapes.dataset import DecodedDataset
from stapes.drawing import WIDE, new_figure, styled
from stapes.engine import FoldedNetwork
from stapes.files import write_json
from stapes.measurement import measure
from stapes.splits import folds
from stapes.terminal import progress_bar

INGREDIENTS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "without mixing": {"mixing": 0.0},
    "mixing less, Beta(0.4, 0.4)": {"mixing": 0.4},
    "without speed": {"speed": 0.0},
    "speed up to 30 %": {"speed": 0.3},
    "without equaliser and noise": {"equaliser_db": 0.0},
    "equaliser 8 dB, noise up to 0 dB": {"equaliser_db": 8.0, "noise_db": 0.0},
    "without averaged weights": {"averaging": 0.0},
    "without sounds of none of the classes": {"negatives": 0.0},
    "a third of the steps": {"steps_per_epoch": 33},
}
CLIPS = (10, 20, 40, 80, 160)
PATH = presenting.RESULTS / "ablation.json"

Case = tuple[str, dict[str, Any], int | None]
"""A name, settings, and clips to learn from if not all."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--preset", default="classic")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--parts", nargs="*", default=["ingredients", "clips"])
    given = parser.parse_args()
    cases: list[Case] = []
    if "ingredients" in given.parts:
        cases += [(name, settings, None) for name, settings in INGREDIENTS.items()]
    if "clips" in given.parts:
        cases += [(f"{n} clips", {}, n) for n in CLIPS]
    name = Path(given.data).name
    found = json.loads(PATH.read_text()) if PATH.exists() else {}
    with progress_bar() as progress:
        decoded, _ = experiment.read(given.data, progress)
        pairs = folds(decoded.clips, seed=0)
        todo = [(s, c, k) for s in range(given.seeds) for c in cases for k in range(len(pairs))]
        for i, (seed, case, k) in enumerate(todo):
            key = f"{name}, {given.preset}, {case[0]}, seed {seed}, fold {k + 1}"
            if key not in found:
                progress("training", i, len(todo), key)
                found[key] = trained(decoded, *pairs[k], case, seed=seed, preset=given.preset)
                write_json(PATH, found)
    sources = {clip.name: clip.source for clip in decoded.clips}
    prefix = f"{name}, {given.preset}"
    results = {case: summed(found, f"{prefix}, {case}", sources) for case, *_ in cases}
    tell(results)
    if "clips" in given.parts:
        rows = {n: results[f"{n} clips"] for n in CLIPS}
        everything = summed(found, f"{prefix}, the recipe", sources)
        n_all = round(float(np.mean([len(training) for training, _ in pairs])))
        presenting.save(f"learning_curve_{given.preset}", chart(rows | {n_all: everything}))


def trained(
    decoded: DecodedDataset,
    training: Sequence[int],
    held: Sequence[int],
    case: Case,
    *,
    seed: int,
    preset: str,
) -> dict[str, Any]:
    """Which clips of one fold were right, and how many of their segments."""
    _, changed, n_clips = case
    config = ModelConfig(experiment.class_names(decoded.clips), **preset_sizes(preset))
    settings = TrainingConfig(**preset_training(preset) | changed | {"seed": seed})
    if n_clips is not None:
        training = some_of_each(decoded, training, n_clips, seed=seed)
    state = experiment.learn(decoded, training, config=config, settings=settings)
    measured = measure(FoldedNetwork.fold(config, state.best), *decoded.pick(held))
    right = measured.clip_probabilities().argmax(axis=1) == measured.targets
    owners, shares = measured.segment_probabilities()
    segments = shares.argmax(axis=1) == measured.targets[owners]
    return {
        "right": {c.name: bool(r) for c, r in zip(measured.clips, right, strict=True)},
        "segments": [int(segments.sum()), len(segments)],
        "seconds": round(state.seconds, 1),
    }


def some_of_each(
    decoded: DecodedDataset, training: Sequence[int], n_clips: int, *, seed: int
) -> list[int]:
    """So many clips, as many of each class as there are."""
    rng, chosen = np.random.default_rng(seed), list[int]()
    by_class: dict[str, list[int]] = {}
    for i in rng.permutation(training).tolist():
        by_class.setdefault(decoded.clips[i].label, []).append(i)
    for rest, rows in zip(range(len(by_class), 0, -1), by_class.values(), strict=True):
        chosen += rows[: (n_clips - len(chosen)) // rest]
    return sorted(chosen)


def summed(found: Mapping[str, Any], case: str, sources: Mapping[str, str]) -> dict[str, Any]:
    """Over all trainings of one case that there are."""
    parts = [part for key, part in found.items() if key.startswith(f"{case}, seed")]
    right = [(sources[clip], good) for part in parts for clip, good in part["right"].items()]
    segments = np.sum([part["segments"] for part in parts], axis=0)
    goods = np.array([good for _, good in right])
    low, high = evaluation.interval(goods, [source for source, _ in right])
    return {
        "clips": float(goods.mean()),
        "interval": [low, high],
        "segments": float(segments[0] / segments[1]),
        "seconds": float(np.mean([part["seconds"] for part in parts])),
    }


def tell(results: Mapping[str, Mapping[str, Any]]) -> None:
    """A table in Markdown, for docs/accuracy.md."""
    presenting.say("| case | clips right | 95 % interval | segments right |\n|---|---|---|---|")
    for name, row in results.items():
        low, high = row["interval"]
        presenting.say(
            f"| {name} | {row['clips']:.3f} | {low:.3f} to {high:.3f} | {row['segments']:.3f} |"
        )


@styled
def chart(rows: Mapping[int, Mapping[str, Any]]) -> Figure:
    """Share of clips right against clips learnt from."""
    figure = new_figure(width=WIDE, height=3.0)
    axes = figure.subplots()
    values = np.array([row["clips"] for row in rows.values()])
    ends = np.array([row["interval"] for row in rows.values()]).T
    axes.errorbar(list(rows), values, yerr=np.abs(ends - values), color=ACCENT, marker="o")
    axes.set_xscale("log")
    axes.set_xticks(list(rows), [f"{n}" for n in rows])
    axes.minorticks_off()
    axes.set_xlabel("clips learnt from (logarithmic)", loc="left", size=8)
    axes.set_ylabel("share of clips right", size=8)
    axes.set_title("Accuracy against recordings")
    presenting.finish(axes, grid="y")
    presenting.small(figure, "five grouped folds; lines: 95 % intervals over sources")
    return figure


if __name__ == "__main__":
    main()
