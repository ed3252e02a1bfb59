"""The model that comes with the package, its cross-validation, and the notebook's protocol.

python benchmarks/shipped.py DATA [--seeds 3] [--threads 1] [--foreign FOLDER ...] [--ship NAME]
    [--without by-file protocols]

Writes benchmarks/results/shipped.json and benchmarks/results/reproduce.json, and with --ship the
model that comes with the package, which learns from all recordings and is calibrated by the
answers out of fold. What a split by file would say takes as long as the rest; the protocols of the
notebook do not depend on the recipe. A run that was ended goes on where it was if the same command
is given again: its trainings lie in build/crossval, in a folder for each recipe, until they are
done.
"""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

import machine
import stapes
from stapes.checkpoint import MODEL_FILE
from stapes.config import TrainingConfig, as_dict, preset_sizes, preset_training
from stapes.files import write_json
from stapes.runs import TRAININGS_FOLDER
from stapes.terminal import print_metrics, print_protocols, progress_bar
from stapes.threads import using_threads

RESULTS = Path(__file__).parent / "results"
MODELS = Path(__file__).parent.parent / "src" / "stapes" / "models"
BUILD = Path(__file__).parent.parent / "build" / "crossval"

LISTS = ("roc", "mistakes", "suspicious", "examples")
"""What a report shows clip by clip, and no document quotes."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("data")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--foreign", nargs="*", default=[])
    arguments.add_argument("--ship")
    arguments.add_argument("--without", nargs="*", default=[], choices=["by-file", "protocols"])
    given = arguments.parse_args()
    facts = machine.describe(threads=given.threads)
    run, going_on = place("shipped", "classic", n_classes=2)
    with progress_bar() as progress:
        metrics = stapes.crossval(
            given.data,
            out=run,
            resume=going_on,
            overwrite=not going_on,
            seeds=given.seeds,
            foreign=given.foreign,
            threads=given.threads,
            by_file="by-file" not in given.without,
            progress=progress,
        )
        if given.ship:
            shutil.copyfile(run / MODEL_FILE, MODELS / f"{given.ship}.safetensors")
        write_json(RESULTS / "shipped.json", without_lists(metrics) | {"machine": facts})
    print_metrics(metrics, title=f"{len(metrics['folds'])} folds, {given.seeds} seeds")
    for fold in metrics["folds"]:
        sys.stdout.write(f"fold {fold['fold']}: {fold['clips']['accuracy']:.3f} of clips\n")
    if "protocols" not in given.without:
        with progress_bar() as progress, using_threads(given.threads):
            protocols = stapes.reproduce(given.data, seeds=given.seeds, progress=progress)
        print_protocols(protocols)
        write_json(RESULTS / "reproduce.json", protocols)


def place(name: str, preset: str, *, n_classes: int) -> tuple[Path, bool]:
    """The run folder of a cross-validation with today's recipe, and whether to go on there."""
    training = preset_training(preset, n_classes=n_classes)
    recipe = json.dumps([preset_sizes(preset), training, as_dict(TrainingConfig())])
    folder = BUILD / f"{name}_{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    return folder, (folder / TRAININGS_FOLDER).exists()


def without_lists(metrics: dict) -> dict:
    """The numbers, without what names single clips and without this machine's paths."""
    kept = {key: value for key, value in metrics.items() if key not in LISTS}
    kept["audit"] = {key: value for key, value in kept["audit"].items() if key != "findings"}
    return kept | {"data": Path(metrics["data"]).name}


if __name__ == "__main__":
    main()
