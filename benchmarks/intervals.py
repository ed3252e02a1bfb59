"""How often intervals of an accuracy hold the truth, ours beside the bootstrap over sources.

python benchmarks/intervals.py [--runs 400]

Writes benchmarks/results/intervals.json: for each world the share of runs in which each interval
held the true accuracy, and its mean width. In a world sources are as hard as chance has it, and
clips of one source are right with the same probability.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import presenting
from stapes import evaluation
from stapes.files import write_json
from stapes.terminal import progress_bar

Array = NDArray[np.float64]

N_SOURCES = (3, 5, 10, 20, 60)

N_RESAMPLES = 1000

SPREAD = 0.3
"""Correlation of two clips of a source."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    given = parser.parse_args()
    cases = [(name, n) for name in WORLDS for n in N_SOURCES]
    results: list[dict[str, Any]] = []
    with progress_bar() as progress:
        for i, (name, n_sources) in enumerate(cases):
            progress("simulating", i, len(cases), name)
            results.append(measured(name, n_sources, runs=given.runs))
    write_json(presenting.RESULTS / "intervals.json", {"runs": given.runs, "worlds": results})
    for row in results:
        presenting.say(
            f"{row['world']}, {row['n_sources']} sources: {row['ours']['held']:.3f} (bootstrap"
            f" {row['bootstrap']['held']:.3f}), {row['ours']['width']:.2f} wide"
            f" ({row['bootstrap']['width']:.2f})"
        )


def measured(world: str, n_sources: int, *, runs: int) -> dict[str, Any]:
    """Ours and the bootstrap on the same clips."""
    rng = np.random.default_rng(0)
    found: dict[str, list[tuple[bool, float]]] = {"ours": [], "bootstrap": []}
    for _ in range(runs):
        counts, chances, truth = WORLDS[world](n_sources, rng)
        sources = np.repeat(np.arange(n_sources), counts)
        right = rng.random(len(sources)) < chances[sources]
        ends = {
            "ours": evaluation.interval(right, sources.astype(str).tolist()),
            "bootstrap": bootstrap(right, sources, rng),
        }
        for method, (low, high) in ends.items():
            found[method].append((low <= truth <= high, high - low))
    told: dict[str, Any] = {"world": world, "n_sources": n_sources}
    for method, rows in found.items():
        held, width = np.mean(rows, axis=0).tolist()
        told[method] = {"held": held, "width": width}
    return told


def bootstrap(
    right: NDArray[np.bool_], sources: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float]:
    """The middle 95 % of accuracies of sources drawn with replacement."""
    counts, sums = np.bincount(sources), np.bincount(sources, right)
    drawn = rng.integers(len(counts), size=(N_RESAMPLES, len(counts)))
    shares = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def alike(accuracy: float, n_clips: int) -> Callable[..., tuple[NDArray[np.int64], Array, float]]:
    """Sources of as many clips each, whose chances vary around the accuracy."""

    def world(n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], Array, float]:
        return np.full(n, n_clips), _chances(n, accuracy, rng), accuracy

    return world


def unequal(accuracy: float) -> Callable[..., tuple[NDArray[np.int64], Array, float]]:
    """Sources of one clip to some hundreds."""

    def world(n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], Array, float]:
        counts = np.ceil(rng.lognormal(1.5, 1.2, n)).astype(np.int64)
        return counts, _chances(n, accuracy, rng), accuracy

    return world


def failing(n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], Array, float]:
    """One source in ten fails as a whole; 20 clips each."""
    chances = np.where(rng.random(n) < 0.1, 0.2, 0.99)
    return np.full(n, 20), chances, 0.9 * 0.99 + 0.1 * 0.2


def _chances(n: int, accuracy: float, rng: np.random.Generator) -> Array:
    rest = 1 / SPREAD - 1
    return rng.beta(accuracy * rest, (1 - accuracy) * rest, n)


WORLDS = {
    "one clip each, 0.9 right": alike(0.9, 1),
    "20 clips each, 0.8 right": alike(0.8, 20),
    "20 clips each, 0.97 right": alike(0.97, 20),
    "unequal, 0.8 right": unequal(0.8),
    "unequal, 0.97 right": unequal(0.97),
    "one source in ten fails": failing,
}


if __name__ == "__main__":
    main()
