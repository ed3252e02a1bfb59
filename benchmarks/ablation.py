"""What each ingredient of the recipe is worth, and how many recordings are enough.

python benchmarks/ablation.py DATA [--preset classic] [--epochs 15] [--seeds 3]
    [--parts ingredients clips]

Grouped cross-validation with one ingredient changed at a time, and with fewer recordings to learn
from; with half the epochs of the classic preset unless told otherwise. Every training is written
when it is done, and not done again: the same command goes on where it was ended.

Writes benchmarks/results/ablation.json and docs/images/learning_curve.png.
"""

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import presenting
from stapes import evaluation, experiment
from stapes.colours import ACCENT
from stapes.config import ModelConfig, TrainingConfig, preset_sizes
from stapes.dataset import DecodedDataset
from stapes.drawing import WIDE, new_figure, styled
from stapes.engine import FoldedNetwork
from stapes.files import write_json
from stapes.measurement import measure
from stapes.splits import folds
from stapes.terminal import progress_bar

RECIPE = "the recipe"
INGREDIENTS: dict[str, dict[str, Any]] = {
    RECIPE: {},
    "without mixing": {"mixing": 0.0},
    "without speed": {"speed": 0.0},
    "without polarity": {"polarity": False},
    "without equaliser and noise": {"equaliser_db": 0.0},
    "equaliser 8 dB, noise up to 0 dB": {"equaliser_db": 8.0, "noise_db": 0.0},
    "without averaged weights": {"averaging": 0.0},
    "without sounds of none of the classes": {"negatives": 0.0},
    "twice the steps": {"steps_per_epoch": 200},
}
CLIPS = (10, 20, 40, 80, 160)
PATH = presenting.RESULTS / "ablation.json"

Case = tuple[str, dict[str, Any], int | None]
"""A name, settings, and clips to learn from if not all."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--preset", default="classic")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", nargs="*", default=["ingredients", "clips"])
    given = parser.parse_args()
    cases: list[Case] = []
    if "ingredients" in given.parts:
        cases += [(name, settings, None) for name, settings in INGREDIENTS.items()]
    if "clips" in given.parts:
        cases += [(f"{n} clips", {}, n) for n in CLIPS]
    found = json.loads(PATH.read_text()) if PATH.exists() else {"trainings": {}, "results": {}}
    prefix = f"{Path(given.data).name}, {given.preset}, {given.epochs} epochs"
    done = found["trainings"]
    with progress_bar() as progress:
        decoded, _ = experiment.read(given.data, progress)
        pairs = folds(decoded.clips, seed=0)
        todo = [(s, c, k) for s in range(given.seeds) for c in cases for k in range(len(pairs))]
        for i, (seed, case, k) in enumerate(todo):
            key = f"{prefix}, {case[0]}, seed {seed}, fold {k + 1}"
            if key not in done:
                progress("training", i, len(todo), key)
                settings = {"seed": seed, "epochs": given.epochs} | case[1]
                done[key] = trained(
                    decoded, *pairs[k], n_clips=case[2], settings=settings, preset=given.preset
                )
                write_json(PATH, found)
    names = [clip.name for _, held in pairs for clip in decoded.pick(held)[0]]
    sources = {clip.name: clip.source for clip in decoded.clips}
    n_all = round(float(np.mean([len(training) for training, _ in pairs])))
    results = {name: summed(done, f"{prefix}, {name}", names, sources) for name, *_ in cases}
    found["results"][prefix] = {"n_clips": n_all, "cases": results}
    write_json(PATH, found)
    tell(results)
    if "clips" in given.parts:
        rows = {n: results[f"{n} clips"] for n in CLIPS}
        everything = summed(done, f"{prefix}, {RECIPE}", names, sources)
        presenting.save("learning_curve", chart(rows | {n_all: everything}))


def trained(
    decoded: DecodedDataset,
    training: Sequence[int],
    held: Sequence[int],
    *,
    n_clips: int | None,
    settings: Mapping[str, Any],
    preset: str,
) -> dict[str, Any]:
    """Which clips of one fold were wrong, and how many of their segments right, of how many."""
    config = ModelConfig(experiment.class_names(decoded.clips), **preset_sizes(preset))
    if n_clips is not None:
        training = some_of_each(decoded, training, n_clips, seed=settings["seed"])
    state = experiment.learn(decoded, training, config=config, settings=TrainingConfig(**settings))
    measured = measure(FoldedNetwork.fold(config, state.best), *decoded.pick(held))
    right = measured.clip_probabilities().argmax(axis=1) == measured.targets
    owners, shares = measured.segment_probabilities()
    segments = shares.argmax(axis=1) == measured.targets[owners]
    return {
        "wrong": [c.name for c, good in zip(measured.clips, right, strict=True) if not good],
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


def summed(
    done: Mapping[str, Any], case: str, names: Sequence[str], sources: Mapping[str, str]
) -> dict[str, Any]:
    """Over all seeds of one case, and against the recipe's same seeds."""
    prefix = case.rpartition(", ")[0]
    right, recipe, rows, parts = list[bool](), list[bool](), list[str](), list[Any]()
    for seed in itertools.count():
        own = _of_seed(done, case, seed)
        if not own:
            break
        parts += own
        wrong, others = (_wrong(p) for p in (own, _of_seed(done, f"{prefix}, {RECIPE}", seed)))
        right += [name not in wrong for name in names]
        recipe += [name not in others for name in names]
        rows += [sources[name] for name in names]
    segments = np.sum([part["segments"] for part in parts], axis=0)
    low, high = evaluation.interval(np.array(right), rows)
    change = evaluation.compare(np.array(right), np.array(recipe), rows)
    return {
        "clips": {"accuracy": float(np.mean(right)), "interval": [low, high]},
        "segments": {"accuracy": float(segments[0] / segments[1])},
        "change": {name: change[name] for name in ("accuracy", "interval")},
        "n_seeds": len(right) // len(names),
        "seconds": float(np.mean([part["seconds"] for part in parts])),
    }


def _of_seed(done: Mapping[str, Any], case: str, seed: int) -> list[Any]:
    """What its trainings left, one a fold."""
    return [part for key, part in done.items() if key.startswith(f"{case}, seed {seed}, ")]


def _wrong(parts: Sequence[Mapping[str, Any]]) -> set[str]:
    return {name for part in parts for name in part["wrong"]}


def tell(results: Mapping[str, Mapping[str, Any]]) -> None:
    for name, row in results.items():
        low, high = row["clips"]["interval"]
        presenting.say(
            f"{name}: {row['clips']['accuracy']:.3f} of clips ({low:.3f} to {high:.3f}),"
            f" {row['segments']['accuracy']:.3f} of segments; {row['n_seeds']} seeds"
        )


@styled
def chart(rows: Mapping[int, Mapping[str, Any]]) -> Figure:
    """Share of clips right against clips learnt from."""
    figure = new_figure(width=WIDE, height=3.0)
    axes = figure.subplots()
    values = np.array([row["clips"]["accuracy"] for row in rows.values()])
    ends = np.array([row["clips"]["interval"] for row in rows.values()]).T
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
