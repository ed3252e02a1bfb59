"""Results as the protocols write them, made up, for tests of the page that shows them."""

import numpy as np

LABELS = ("cat", "dog")


def part(accuracy, *, n=280, interval=(0.93, 0.98), classes=LABELS, seeds=3):
    """Accuracy, confusion and so on of clips or segments."""
    total = n * seeds // len(classes)
    right = round(total * accuracy)
    wrong = (total - right) // max(len(classes) - 1, 1)
    matrix = np.full((len(classes), len(classes)), wrong)
    np.fill_diagonal(matrix, total - wrong * (len(classes) - 1))
    return {
        "accuracy": accuracy,
        "balanced_accuracy": accuracy - 0.01,
        "n": n,
        "n_sources": n * 249 // 280,
        "interval": list(interval),
        "roc_area": 0.987,
        "recall": {c: matrix[i, i] / matrix[i].sum() for i, c in enumerate(classes)},
        "confusion": matrix.tolist(),
        "majority_accuracy": accuracy - 0.005,
    }


def baseline(name, theirs, *, ours=0.961, beaten=True):
    clips = {"accuracy": theirs, "balanced_accuracy": theirs, "n": 280}
    difference = {
        "accuracy": ours - theirs,
        "interval": [ours - theirs - 0.03, ours - theirs + 0.03],
        "p_value": 0.0001 if beaten else 0.4,
        "beaten": beaten,
    }
    clips["interval"] = [max(theirs - 0.05, 0), min(theirs + 0.05, 1)]
    return {"name": name, "clips": clips, "difference": difference}


def bins(bend):
    """Ten bins of confidence in which the share right is bent away from what was stated."""
    edges = np.linspace(0.5, 1, 11)
    return [
        {"low": low, "high": high, "confidence": (low + high) / 2, "n": n,
         "accuracy": min(1.0, (low + high) / 2 - bend * (1 - high))}
        for low, high, n in zip(
            edges[:-1].tolist(), edges[1:].tolist(), [4, 6, 5, 9, 12, 14, 20, 31, 55, 684],
            strict=True,
        )
    ]  # fmt: skip


def acceptance(classes=LABELS):
    coverage = np.linspace(0, 1, 41)
    labels = ("rain", "sea waves", "clock tick", "crying baby", "helicopter", "rooster")
    by_label = {
        label: {"n": 40, "called_before": 1.0, "called_after": 0.01 * i * i}
        for i, label in enumerate(labels)
    }
    return {
        "coverage": 0.95,
        "sources_needed": 19,
        "covered": dict.fromkeys(classes, 0.946),
        "thresholds": dict.fromkeys(classes, 0.87),
        "foreign": {
            "n": 240,
            "called_before": 1.0,
            "called_after": 0.092,
            "by_label": by_label,
            "curve": np.stack([coverage, 0.002 + 0.6 * coverage**36], axis=1).tolist(),
        },
    }


def mistake(index, name, classes=LABELS):
    label, other = classes[index % len(classes)], classes[(index + 1) % len(classes)]
    return {
        "name": name,
        "label": label,
        "predicted": other,
        "suggested": other,
        "probability": 0.99 - 0.001 * index,
        "disagreement": 0.98 - 0.001 * index,
        "probabilities": {label: 0.01 + 0.001 * index, other: 0.99 - 0.001 * index},
        "duration_seconds": 6.0,
    }


def audit(names):
    kinds = ("overlap", "same audio", "overlap")
    return {
        "n_files": 280,
        "n_sources": 249,
        "counts": {"overlap": 28, "same audio": 2, "two labels": 0},
        "findings": [
            {"kind": kinds[i % 3], "files": list(pair), "labels": ["cat", "cat"],
             "words": f"{1.5 + i:.1f} s of {pair[0]} from 1.2 s on are in {pair[1]}",
             "offset_seconds": 1.2 * (-1) ** i,
             "overlap_seconds": 1.5 + i, "similarity": 0.998}
            for i, pair in enumerate(zip(names[::2], names[1::2], strict=False))
        ],
    }  # fmt: skip


def crossval_metrics(names=("cat/cat_1.wav", "dog/dog_1.wav"), *, classes=LABELS):
    """A cross-validation with everything that the contract knows."""
    rate = np.linspace(0, 1, 300)
    clips = part(0.961, classes=classes)
    segments = part(0.874, n=1931, interval=(0.85, 0.9), classes=classes)
    short = {key: clips[key] for key in ("accuracy", "balanced_accuracy", "n", "interval")}
    return {
        "kind": "crossval",
        "parameters": 3041,
        "classes": list(classes),
        "preset": "classic",
        "settings": {"epochs": 50, "learning_rate": 0.01, "augment": True, "gate": None},
        "seconds": 702.4,
        "version": "0.1.0",
        "data": "cats_dogs",
        "clips": clips,
        "segments": segments,
        "folds": [
            {"fold": k, "clips": {**short, "accuracy": 0.9 + 0.02 * k, "n": 56},
             "segments": {"accuracy": 0.8, "n": 386}}
            for k in range(1, 6)
        ],
        "seeds": [
            {"seed": k, "clips": {**short, "accuracy": 0.95 + 0.006 * k},
             "segments": {"accuracy": 0.87, "n": 1931}}
            for k in range(3)
        ],
        "by_file": {"clips": {**short, "accuracy": 0.979, "interval": [0.96, 0.99]}},
        "baselines": [
            baseline("majority class", 0.593),
            baseline("loudness only", 0.671),
            baseline("average spectrum + logistic regression", 0.854),
            baseline("MFCC statistics + SVM", 0.914),
        ],
        "calibration": {
            "clip_temperature": 0.71, "segment_temperature": 1.13, "n_bins": 10,
            "error_before": 0.071, "error_after": 0.021, "before": bins(0.8), "after": bins(0.1),
        },
        "acceptance": acceptance(classes),
        "roc": {c: {"false_positives": rate.tolist(), "true_positives": (rate**0.06).tolist()}
                for c in (classes[1:] if len(classes) == 2 else classes)},
        "mistakes": [mistake(i, name, classes) for i, name in enumerate(names[:11])],
        "suspicious": [mistake(i, name, classes) for i, name in enumerate(names[4:15])],
        "audit": audit(list(names)),
        "examples": {c: list(names[3 * i : 3 * i + 3]) for i, c in enumerate(classes)},
        "profile": {
            "n_recordings": 280, "sample_rates_hz": [16000], "level_db": [-31.2, -18.4, -5.25],
            "peak_db": [-9.0, -0.5, 0.0], "noise_db": [-80.5, -51.0, -30.0],
            "bandwidth_hz": [3500.0, 7750.0, 8000.0], "clipped_share": [0.0, 0.001, 0.03],
        },
        "skipped": [{"name": "dog/dog_99.wav", "reason": "empty file"}],
    }  # fmt: skip
