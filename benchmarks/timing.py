"""Calls timed in turns, A B C A B C ..., so that what disturbs the machine disturbs all of them."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Call = Callable[[], Any]
Seconds = dict[str, list[float]]
"""For each name the seconds that one call took, round by round."""

TURN_SECONDS = 0.25
"""In a turn a call is repeated until this long has passed, and its mean time is noted."""

PAUSE_SECONDS = 0.05
"""Between two turns, for the threads of the last library to stop waiting for more work."""

TRIALS = 7
"""Calls of which the shortest chooses between two ways of doing the same."""


def interleaved(
    calls: Mapping[str, Call], *, rounds: int, periods: Mapping[str, int] = {}
) -> Seconds:
    """Seconds a call of each, round by round.

    Every turn begins with a call that is not timed: caches are cold, threads asleep, and what was
    made ahead of time before the pause would be free. Of a call that does more every so many times,
    its period, whole periods are timed.
    """
    repeats = {}
    for name, call in calls.items():
        period = periods.get(name, 1)
        repeats[name] = period * max(1, round(TURN_SECONDS / _shortest(call) / period))
    seconds: Seconds = {name: [] for name in calls}
    gc.collect()
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE_SECONDS)
            call()
            started = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            seconds[name].append((time.perf_counter() - started) / repeats[name])
    return seconds


def fastest(candidates: Mapping[str, Call]) -> str:
    """The name of the way that is quickest, after one call of each to warm up."""
    for call in candidates.values():
        call()
    if len(candidates) == 1:
        return next(iter(candidates))
    tried = {name: _shortest(call) for name, call in candidates.items()}
    return min(tried, key=lambda name: tried[name])


def _shortest(call: Call) -> float:
    times = []
    for _ in range(TRIALS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median and spread of some values, and the values."""
    names = ("min", "lower_quartile", "median", "upper_quartile", "max")
    quantiles = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()
    return dict(zip(names, quantiles, strict=True)) | {"values": list(values)}


def summaries(seconds: Seconds, *, ours: str) -> dict[str, dict[str, Any]]:
    """For each name its seconds, and how many times ours, by the ratio within each round."""
    return {
        name: {
            "seconds": summary(values),
            "times_ours": summary(np.divide(values, seconds[ours]).tolist()),
        }
        for name, values in seconds.items()
    }
