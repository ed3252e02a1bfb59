"""Accuracy on labelled recordings: grouped cross-validation and the notebook's protocol.

python benchmarks/accuracy.py DATA [--seeds 3]

Writes benchmarks/results/accuracy.json and benchmarks/results/reproduce.json.
"""

import argparse
import sys
from pathlib import Path

import stapes
from stapes.files import write_json
from stapes.terminal import print_metrics, print_protocols, progress_bar

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("data")
    arguments.add_argument("--seeds", type=int, default=3)
    given = arguments.parse_args()
    with progress_bar() as progress:
        metrics = stapes.crossval(given.data, seeds=given.seeds, progress=progress)
        protocols = stapes.reproduce(given.data, seeds=given.seeds, progress=progress)
    print_metrics(metrics, title=f"{len(metrics['folds'])} folds, {given.seeds} seeds")
    for fold in metrics["folds"]:
        sys.stdout.write(f"fold {fold['fold']}: {fold['clips']['accuracy']:.3f} of clips\n")
    print_protocols(protocols)
    write_json(RESULTS / "accuracy.json", metrics)
    write_json(RESULTS / "reproduce.json", protocols)


if __name__ == "__main__":
    main()
