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
    metrics = read("shipped")
    clips, segments = metrics["clips"], metrics["segments"]
    folds = " ".join(f"{fold['clips']['accuracy']:.3f}" for fold in metrics["folds"])
    seeds = " ".join(f"{seed['clips']['accuracy']:.3f}" for seed in metrics["seeds"])
    known = metrics["calibration"]
    rows = [
        ("clips right", with_interval(clips)),
        ("clips right, had the split been by file", with_interval(metrics["by_file"]["clips"])),
        ("clips right, majority vote", f"{clips['majority_accuracy']:.3f}"),
        ("clips, classes counted alike", f"{clips['balanced_accuracy']:.3f}"),
        ("clips, area under the ROC curve", f"{clips['roc_area']:.3f}"),
        *((f"recall of {label}", f"{value:.3f}") for label, value in clips["recall"].items()),
        ("clips right, fold by fold", folds),
        ("clips right, seed by seed", seeds),
        (f"segments right ({segments['n']:,})", with_interval(segments)),
        (
            "calibration error, before and after",
            f"{known['error_before']:.3f}, {known['error_after']:.3f}",
        ),
    ]
    return table(("", "share"), rows)


def baseline_table() -> str:
    metrics = read("shipped")
    rows = [("**stapes, 3,041 parameters**", with_interval(metrics["clips"]), "")]
    for row in metrics["baselines"]:
        gap = row["difference"]
        low, high = gap["interval"]
        chance = f"p = {gap['p_value']:.3f}" if gap["p_value"] >= 0.0005 else "p < 0.001"
        ahead = f"{gap['accuracy']:+.3f}, {low:+.3f} to {high:+.3f}, {chance}"
        rows.append((row["name"], with_interval(row["clips"]), ahead))
    return table(("method", "clips right", "stapes less that, 95 % interval"), rows)


def foreign_table() -> str:
    accepted = read("shipped")["acceptance"]
    covered = " and ".join(
        f"{share:.2f} of {label}s" for label, share in accepted["covered"].items()
    )
    rows = [
        (label, str(part["n"]), f"{part['called_after']:.2f}")
        for label, part in accepted["foreign"]["by_label"].items()
    ]
    foreign = accepted["foreign"]
    rows.append(("**all**", str(foreign["n"]), f"**{foreign['called_after']:.2f}**"))
    head = ("sound", "clips", f"taken for a cat or a dog, keeping {covered}")
    return table(head, sorted(rows[:-1], key=lambda row: row[2]) + rows[-1:])


def audit_table() -> str:
    """What the audit finds of copies made of real recordings, and of what it should not find."""
    copies = read("audit_copies_cats_dogs")
    rows = [
        (name, f"{kind['found']} of {kind['n']}", f"{kind['recall']:.3f}")
        for name, kind in copies["kinds"].items()
    ]
    rows.append(("**all**", f"{copies['n_pairs']:,} pairs", f"**{copies['recall']:.3f}**"))
    return table(("copies of 278 recordings", "found", "recall"), rows)


def with_interval(part: dict[str, Any]) -> str:
    low, high = part["interval"]
    return f"{part['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}"


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


TABLES = ("accuracy_table", "baseline_table", "foreign_table", "audit_table", "protocol_table")

if __name__ == "__main__":
    for name in TABLES:
        sys.stdout.write(f"{globals()[name]()}\n")
