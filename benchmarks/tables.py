"""The README's tables, from the JSON of benchmarks/results.

python benchmarks/tables.py
"""

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

PROTOCOLS = {
    "published": "the notebook says of itself",
    "notebook": "its protocol, run here",
    "notebook_blind": "the same networks, labels hidden from the normalisation",
    "split_by_file": "segments inside clips, normalised by themselves; split by file",
    "honest": "the same, split by source",
}


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def accuracy_table() -> str:
    metrics = read("accuracy")
    clips, segments = metrics["clips"], metrics["segments"]
    low, high = clips["interval"]
    folds = " ".join(f"{fold['clips']['accuracy']:.3f}" for fold in metrics["folds"])
    seeds = " ".join(f"{seed['clips']['accuracy']:.3f}" for seed in metrics["seeds"])
    rows = [
        ("clips right", f"{clips['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}"),
        ("clips right, majority vote", f"{clips['majority_accuracy']:.3f}"),
        ("clips, classes counted alike", f"{clips['balanced_accuracy']:.3f}"),
        ("clips, area under the ROC curve", f"{clips['roc_area']:.3f}"),
        *((f"recall of {label}", f"{value:.3f}") for label, value in clips["recall"].items()),
        ("clips right, fold by fold", folds),
        ("clips right, seed by seed", seeds),
        (f"segments right ({segments['n']:,})", f"{segments['accuracy']:.3f}"),
    ]
    return table(("", "share"), rows)


def protocol_table() -> str:
    results = read("reproduce")
    rows = []
    for key, name in PROTOCOLS.items():
        parts = [results[key][part] for part in ("segments", "clips")]
        shares = [part if key == "published" else part["accuracy"] for part in parts]
        rows.append((name, *(f"{share:.3f}" for share in shares)))
    for key, name in {"gap": "the notebook's", "leak": "a split by file"}.items():
        gap = [f"{results[key][part]:+.3f}" for part in ("segments", "clips")]
        rows.append((f"**{key}:** {name} less the honest one", *gap))
    return table(("protocol", "segments right", "clips right"), rows)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(f"{accuracy_table()}\n{protocol_table()}")
