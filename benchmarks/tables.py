"""The documents' tables, from the JSON of benchmarks/results.

python benchmarks/tables.py
"""

import json
import statistics
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
    leaking = metrics.get("by_file")
    by_file = (
        [("clips right, had the split been by file", with_interval(leaking["clips"]))]
        if leaking
        else []
    )
    rows = [
        ("clips right", with_interval(clips)),
        *by_file,
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


def ladder_table(name: str) -> str:
    """Every preset, and the simple rules, on one set of recordings."""
    presets = read(name)["presets"]
    rows = []
    for preset, result in presets.items():
        seconds = statistics.median(result["training_seconds"])
        memory = f", {result['most_bytes'] / 1e6:,.0f} MB" if "most_bytes" in result else ""
        rows.append(
            (
                f"**{preset}**",
                f"{result['parameters']:,}",
                f"{result['multiply_adds'] / 1e6:.1f} M",
                with_interval(result["clips"]),
                f"{result['segments']['accuracy']:.3f}",
                " ".join(f"{seed['clips']['accuracy']:.3f}" for seed in result["seeds"]),
                f"{seconds:.0f} s{memory}",
            )
        )
    for row in next(iter(presets.values()))["baselines"]:
        rows.append((row["name"], "", "", with_interval(row["clips"]), "", "", ""))
    head = ("", "parameters", "multiply-adds", "clips right", "segments right", "clips, by seed")
    return table((*head, "a training, and most memory of all"), rows)


def summary_table() -> str:
    """Every preset and the best simple rule, on both sets of recordings."""
    sets = [read(f"accuracy_{name}")["presets"] for name in ("cats_dogs", "esc10")]
    rows = []
    for preset in sets[0]:
        shares = (in_brackets(found[preset]["clips"]) for found in sets)
        rows.append((f"**{preset}**", f"{sets[0][preset]['parameters']:,}", *shares))
    rules = [next(iter(found.values()))["baselines"][-1] for found in sets]
    rows.append((rules[0]["name"], "", *(in_brackets(rule["clips"]) for rule in rules)))
    return table(("", "parameters, two classes", "cats and dogs", "ESC-10"), rows)


def speed_table() -> str:
    """How many times as long the peers take, the quickest way of each."""
    cases = {"a training step, batch of 32": read("train_step")["results"]}
    cases |= {title: case["results"] for title, case in read("inference")["cases"].items()}
    names = ("Keras", "TensorFlow", "PyTorch", "torch.compile", "ONNX Runtime", "OpenVINO")
    rows = []
    for title, results in cases.items():
        ours = next(r for name, r in results.items() if name.startswith("stapes"))
        cells = [f"{ours['seconds']['median'] * 1e3:.2f} ms"]
        for peer in names:
            found = [r["times_ours"]["median"] for n, r in results.items() if is_way(n, peer)]
            cells.append(f"{min(found):.1f} ×" if found else "")
        rows.append((title, *cells))
    return table(("", "stapes", *names), rows)


def is_way(name: str, peer: str) -> bool:
    """Whether a row is one of a peer's: its name, and the way it was run."""
    return name == peer or name.startswith(f"{peer}, ")


def files_table() -> str:
    """Files to answers on one thread."""
    files = read("end_to_end")["files"]
    rows = []
    for name, dense in next(reversed(files.values())).items():
        usual = next(iter(files.values()))[name]
        share = usual["stages"]["network"] / usual["one_thread"]["median"]
        speeds = (part["times_real_time_one_thread"] for part in (usual, dense))
        rows.append((name, *(f"{speed:,.0f} ×" for speed in speeds), f"{share:.0%}"))
    return table(("", "every 256 ms", "every 64 ms", "the network's share, every 256 ms"), rows)


def machine_line(name: str) -> str:
    """What a benchmark ran on."""
    machine = read(name)["machine"]
    times = machine.get("processors_compute_times_one")
    together = f", together {times:.1f} times as fast as one" if times else ""
    kernels = {"avx512": "AVX-512", "avx2": "AVX2", "baseline": "SSE or NEON"}[machine["kernels"]]
    return f"{machine['processor']}, {machine['processors']} processors{together}, {kernels}"


def other_machine_line(name: str) -> str:
    """A training step on another machine, and the peers that were asked for."""
    found = read(name)
    results = found["results"]
    ours = results["stapes, making its batch"]["seconds"]["median"] * 1e3
    peers = []
    for peer in ("Keras", "PyTorch", "torch.compile"):
        ratio = min(r["times_ours"]["median"] for n, r in results.items() if is_way(n, peer))
        peers.append(f"{peer} {ratio:.1f} ×")
    return (
        f"{machine_line(name)} (load {found['machine']['load_average_before']:.1f} before it):\n"
        f"a training step with its batch {ours:.1f} ms, {', '.join(peers)}"
    )


def load_line() -> str:
    """How busy the machine was before each benchmark of speed, by the average of a minute."""
    names = ("train_step", "inference", "end_to_end", "scaling", "install")
    loads = {name: read(name)["machine"]["load_average_before"] for name in names}
    return ", ".join(f"{load:.1f} before {name}.py" for name, load in loads.items())


def robustness_table() -> str:
    results = read("robustness")["results"]
    clean = results["as recorded"]["shipped"]["clips"]["accuracy"]
    rows = []
    for name, result in results.items():
        unheard, known = result["unheard"], result["shipped"]["clips"]["accuracy"]
        low, high = unheard["change"]["interval"]
        change = f"{unheard['change']['accuracy']:+.3f}, {low:+.3f} to {high:+.3f}"
        shares = [f"{unheard[part]['accuracy']:.3f}" for part in ("clips", "segments")]
        row = (name, *shares, change, f"{known:.3f}", f"{known - clean:+.3f}")
        rows.append(row if name != "as recorded" else (name, *shares, "", f"{known:.3f}", ""))
    names = ("clips right", "segments right", "clips, change, 95 % interval")
    return table(("", *names, "shipped model, clips it knows", "change"), rows)


def ablation_table(name: str) -> str:
    """One ingredient of the recipe changed at a time."""
    rows = []
    for case, result in read("ablation")[name]["cases"].items():
        if not case.endswith(" clips"):
            low, high = result["change"]["interval"]
            change = f"{result['change']['accuracy']:+.3f}, {low:+.3f} to {high:+.3f}"
            alone = case == "the recipe"
            shares = with_interval(result["clips"]), f"{result['segments']['accuracy']:.3f}"
            rows.append((case, *shares, "" if alone else change))
    return table(("", "clips right", "segments right", "clips, change, 95 % interval"), rows)


def learning_table(name: str) -> str:
    """Fewer recordings to learn from."""
    results = read("ablation")[name]
    cases = {k: v for k, v in results["cases"].items() if k.endswith(" clips")}
    cases[f"{results['n_clips']} clips, all"] = results["cases"]["the recipe"]
    rows = [
        (case, with_interval(result["clips"]), f"{result['segments']['accuracy']:.3f}")
        for case, result in cases.items()
    ]
    return table(("learnt from", "clips right", "segments right"), rows)


def with_interval(part: dict[str, Any]) -> str:
    low, high = part["interval"]
    return f"{part['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}"


def in_brackets(part: dict[str, Any]) -> str:
    low, high = part["interval"]
    return f"{part['accuracy']:.3f} ({low:.3f} to {high:.3f})"


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


TABLES = (
    summary_table,
    accuracy_table,
    baseline_table,
    foreign_table,
    audit_table,
    protocol_table,
    lambda: ladder_table("accuracy_cats_dogs"),
    lambda: ladder_table("accuracy_esc10"),
    speed_table,
    lambda: f"{machine_line('train_step')}\n",
    lambda: f"{load_line()}\n",
    lambda: f"{other_machine_line('train_step_avx2')}\n",
    files_table,
    lambda: f"{machine_line('end_to_end')}\n",
    robustness_table,
    lambda: ablation_table("cats_dogs, classic, 15 epochs"),
    lambda: learning_table("cats_dogs, classic, 15 epochs"),
)

if __name__ == "__main__":
    for make in TABLES:
        sys.stdout.write(f"{make()}\n")
