"""What each ingredient of the recipe is worth, and how many recordings are enough.

python benchmarks/ablation.py DATA [--preset classic] [--epochs 15] [--seeds 3]
    [--parts ingredients clips]

Grouped cross-validation with one ingredient changed at a time, and with fewer recordings to learn
from; with fewer epochs than the classic preset's unless told otherwise. Every training is written
to build/ablation.json when it is done, and not done again: the same command goes on where it was
ended.

Writes benchmarks/results/ablation.json and docs/images/learning_curve.png.
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
from stapes.config import ModelConfig, TrainingConfig, as_dict, preset_sizes
from stapes.dataset import DecodedDataset
from stapes.drawing import WIDE, new_figure, styled
from stapes.engine import FoldedNetwork
from stapes.files import write_json
from stapes.measurement import measure
from stapes.splits import folds
from stapes.terminal import progress_bar

RECIPE = "the recipe"
PARTS = ["ingredients", "clips"]
INGREDIENTS: dict[str, dict[str, Any]] = {
    "without mixing": {"mixing": 0.0},
    "mixing to the end": {"unmixed_share": 0.0},
    "without speed": {"speed": 0.0},
    "without the low cut": {"low_cut": False},
    "without polarity": {"polarity": False},
    "without equaliser and noise": {"equaliser_db": 0.0},
    "equaliser 8 dB, noise up to 0 dB": {"equaliser_db": 8.0, "noise_db": 0.0},
    "without averaged weights": {"averaging": 0.0},
    "without sounds of none of the classes": {"negatives": 0.0},
    "twice the steps": {"steps_per_epoch": 200},
}
CLIPS = (10, 20, 40, 80, 160)
PATH = presenting.RESULTS / "ablation.json"
TRAININGS = Path(__file__).parent.parent / "build" / "ablation.json"

Case = tuple[str, dict[str, Any], int | None]
"""A name, settings, and clips to learn from if not all."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--preset", default="classic")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    given = parser.parse_args()
    cases: list[Case] = [(RECIPE, {}, None)]
    if "ingredients" in given.parts:
        cases += [(name, settings, None) for name, settings in INGREDIENTS.items()]
    if "clips" in given.parts:
        cases += [(f"{n} clips", {}, n) for n in CLIPS]
    prefix = f"{Path(given.data).name}, {given.preset}, {given.epochs} epochs"
    done = kept(TRAININGS)
    TRAININGS.parent.mkdir(exist_ok=True)
    with progress_bar() as progress:
        decoded, _ = experiment.read(given.data, progress)
        pairs = folds(decoded.clips, seed=0)
        rounds = [(seed, k) for seed in range(given.seeds) for k in range(len(pairs))]
        todo = [(seed, k, case) for seed, k in rounds for case in cases]
        for i, (seed, k, (name, changed, n_clips)) in enumerate(todo):
            key = f"{prefix}, {name}, seed {seed}, fold {k + 1}"
            settings = TrainingConfig(**{"seed": seed, "epochs": given.epochs} | changed)
            if done.get(key, {}).get("settings") != as_dict(settings):
                progress("training", i, len(todo), key)
                done[key] = trained(
                    decoded, *pairs[k], n_clips=n_clips, settings=settings, preset=given.preset
                )
                write_json(TRAININGS, done)

    def parts(name: str) -> list[Any]:
        return [done[f"{prefix}, {name}, seed {seed}, fold {k + 1}"] for seed, k in rounds]

    sources = {clip.title: clip.source for clip in decoded.clips}
    n_all = round(float(np.mean([len(training) for training, _ in pairs])))
    results = {name: summed(parts(name), parts(RECIPE), sources) for name, *_ in cases}
    found, recipe = kept(PATH), as_dict(TrainingConfig(epochs=given.epochs))
    before = found.get(prefix, {})
    # One table is of one recipe.
    told = (before["cases"] if before.get("settings") == recipe else {}) | results
    found[prefix] = {"settings": recipe, "n_clips": n_all, "cases": told}
    write_json(PATH, found)
    tell(results)
    if all(f"{n} clips" in told for n in CLIPS):
        rows = {n: told[f"{n} clips"] for n in CLIPS} | {n_all: told[RECIPE]}
        presenting.save("learning_curve", chart(rows, n_folds=len(pairs)))


def kept(path: Path) -> dict[str, Any]:
    """What an earlier run wrote."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def trained(
    decoded: DecodedDataset,
    training: Sequence[int],
    held: Sequence[int],
    *,
    n_clips: int | None,
    settings: TrainingConfig,
    preset: str,
) -> dict[str, Any]:
    """Which clips of one fold were right and which wrong, and of how many segments how many."""
    config = ModelConfig(experiment.class_names(decoded.clips), **preset_sizes(preset))
    if n_clips is not None:
        training = some_of_each(decoded, training, n_clips, seed=settings.seed)
    state = experiment.learn(decoded, training, config=config, settings=settings)
    measured = measure(FoldedNetwork.fold(config, state.best), *decoded.pick(held)).known
    owners, shares = measured.segment_probabilities()
    segments = shares.argmax(axis=1) == measured.targets[owners]
    return {
        "clips": {c.title: int(r) for c, r in zip(measured.clips, measured.right, strict=True)},
        "segments": [int(segments.sum()), len(segments)],
        "seconds": round(state.seconds, 1),
        "settings": as_dict(settings),
    }


def some_of_each(
    decoded: DecodedDataset, training: Sequence[int], n_clips: int, *, seed: int
) -> list[int]:
    """So many clips, as many of each class, where there are that many; at least one."""
    rng, chosen = np.random.default_rng(seed), list[int]()
    by_class: dict[str, list[int]] = {}
    for i in rng.permutation(training).tolist():
        by_class.setdefault(decoded.clips[i].label, []).append(i)
    for rest, rows in zip(range(len(by_class), 0, -1), by_class.values(), strict=True):
        chosen += rows[: max((n_clips - len(chosen)) // rest, 1)]
    return sorted(chosen)


def summed(
    parts: Sequence[Mapping[str, Any]],
    recipe: Sequence[Mapping[str, Any]],
    sources: Mapping[str, str],
) -> dict[str, Any]:
    """One case over all folds and seeds, and against the recipe's same folds and seeds."""
    own = [(clip, good) for part in parts for clip, good in part["clips"].items()]
    rows = [sources[clip] for clip, _ in own]
    right = np.array([good for _, good in own], bool)
    others = np.array([part["clips"][clip] for part in recipe for clip in part["clips"]], bool)
    segments = np.sum([part["segments"] for part in parts], axis=0)
    low, high = evaluation.interval(right, rows)
    change = evaluation.compare(right, others, rows)
    return {
        "clips": {"accuracy": float(np.mean(right)), "interval": [low, high]},
        "segments": {"accuracy": float(segments[0] / segments[1])},
        "change": {name: change[name] for name in ("accuracy", "interval")},
        "n_trainings": len(parts),
        "seconds": float(np.mean([part["seconds"] for part in parts])),
    }


def tell(results: Mapping[str, Mapping[str, Any]]) -> None:
    for name, row in results.items():
        low, high = row["clips"]["interval"]
        presenting.say(
            f"{name}: {row['clips']['accuracy']:.3f} of clips ({low:.3f} to {high:.3f}),"
            f" {row['segments']['accuracy']:.3f} of segments; {row['n_trainings']} trainings"
        )


@styled
def chart(rows: Mapping[int, Mapping[str, Any]], *, n_folds: int) -> Figure:
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
    presenting.small(figure, f"{n_folds} grouped folds; lines: 95 % intervals over sources")
    return figure


if __name__ == "__main__":
    main()
