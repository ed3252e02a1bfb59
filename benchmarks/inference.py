"""Answers beside peers with the same weights: 64 segments, one segment, and long recordings.

python benchmarks/inference.py [--threads N] [--rounds N] [--seconds 60] [--without NAME ...]

Whole segments come normalised. Of a long recording the peers cut every segment, in batches of 64,
and normalise it inside their own graph, which is quicker than NumPy; ours does all that it does for
a file, the peaks of the segments, too. Where STAPES_DATA names real recordings, these are also
joined to one, and compared with the quickest peer alone. Nothing is timed before all answers agree.

Writes benchmarks/results/inference.json and docs/images/inference.png.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import machine
import ours
import presenting
import runners
import sounds
import timing
from peers import arrays, random_torch
from runners import Array, Runner
from stapes.config import ModelConfig
from stapes.engine import FoldedNetwork
from stapes.segments import Waveform, cut, normalise, segment_starts
from timing import Call

BATCH = 64
TOLERANCE = 1e-4
"""By how much two logits may differ, as a share of them where they exceed 1: float32 rounds so. The
largest difference itself is told and written, too."""

LEAST_DEVIATION = 0.02
"""Of the logits of different segments: agreeing about a constant would prove nothing."""

HOPS = {"every second": 16_000, "every 64 ms": 1_024}
OURS = "stapes"
REAL_ROUNDS = 5
"""At most, of all the real recordings: half an hour of sound."""


@dataclass(frozen=True, slots=True)
class Case:
    """Something to time.

    Attributes:
        title: for tables and charts.
        peers: ways by name by peer; each gives logits.
        ours: gives logits.
        most_rounds: where a round takes long.
    """

    title: str
    peers: Mapping[str, Mapping[str, Call]]
    ours: Call
    most_rounds: int = 1_000


def main() -> None:
    parser = machine.arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--without", nargs="*", default=[], help="peers to leave out")
    given = parser.parse_args()
    facts = machine.describe(threads=given.threads)
    results: dict[str, Any] = {}
    with machine.only(given.threads), tempfile.TemporaryDirectory() as folder:
        for case in cases(given, Path(folder)):
            results[case.title] = measured(case, rounds=given.rounds)
            presenting.show_times(case.title, results[case.title]["results"])
        peaks = machine.peaks(threads=given.threads)
    computing = BATCH * ModelConfig(("cat", "dog")).n_multiply_adds
    least = computing / peaks["multiply_adds_a_second"]
    presenting.say(
        f"{BATCH} segments are {computing / 1e6:.0f} M multiply-adds, at least {least * 1e3:.2f} ms"
        f" at this machine's {peaks['multiply_adds_a_second'] / 1e9:.0f} G a second"
    )
    limit = {"multiply_adds": computing, "peaks": peaks, "least_seconds_computing": least}
    panels = [presenting.time_panel(title, part["results"]) for title, part in results.items()]
    more = f"median of {given.rounds} rounds, line: quartiles · same weights, same answers"
    figure = presenting.bar_chart(panels, small_print=presenting.caption(facts, more=more))
    found = {"machine": facts, "limits": limit, "cases": results}
    presenting.write("inference", found, figure)


def cases(given: Any, folder: Path) -> Iterator[Case]:
    """Whole segments first, then recordings."""
    config = ModelConfig(("cat", "dog"))
    network = random_torch(config)
    mine = FoldedNetwork.fold(config, arrays(network))
    made = runners.make(
        network, config, folder=folder, threads=given.threads, without=given.without
    )
    some = normalise(np.stack([w[: config.segment_length] for _, w in sounds.calls(BATCH)]))
    for title, segments in {f"{BATCH} segments": some, "1 segment": some[:1]}.items():
        ways = {
            peer: {way: lambda run=run, x=segments: run(x) for way, run in found.items()}
            for peer, found in made.items()
        }
        yield Case(title, ways, lambda x=segments: mine.logits(x))
    made = runners.make(
        network,
        config,
        folder=folder,
        threads=given.threads,
        without=given.without,
        normalising=True,
    )
    length = f"{given.seconds:g} s"
    steady, loud = sounds.noise(given.seconds), sounds.changing(given.seconds)
    for hop_name, hop_length in HOPS.items():
        yield recording(made, mine, steady, hop_length, title=f"{length}, {hop_name}: noise")
    dense, hop_length = list(HOPS.items())[-1]
    yield recording(made, mine, loud, hop_length, title=f"{length}, {dense}: changing levels")
    real = sounds.recordings()
    if real is not None:
        best = quickest(made, some)
        title = f"{len(real) / sounds.RATE:,.0f} s, {dense}: cats and dogs"
        case = recording(best, mine, real, hop_length, title=title)
        yield replace(case, most_rounds=REAL_ROUNDS)


Runners = Mapping[str, Mapping[str, Runner]]


def recording(
    made: Runners, mine: FoldedNetwork, waveform: Waveform, hop_length: int, *, title: str
) -> Case:
    """Peers that cut a recording into all its segments, and ours, which need not."""
    ways = {
        peer: {
            way: lambda run=run: cut_and_run(run, waveform, hop_length=hop_length)
            for way, run in found.items()
        }
        for peer, found in made.items()
    }
    return Case(title, ways, lambda: ours.timeline(mine, waveform, hop_length=hop_length).logits)


def cut_and_run(run: Runner, waveform: Waveform, *, hop_length: int) -> Array:
    """Logits of every segment, cut out in batches: [T] -> [N, n_outputs]."""
    starts = segment_starts(
        len(waveform), segment_length=runners.SEGMENT_LENGTH, hop_length=hop_length
    )
    parts = (starts[first : first + BATCH] for first in range(0, len(starts), BATCH))
    length = runners.SEGMENT_LENGTH
    return np.concatenate([run(cut(waveform, part, segment_length=length)) for part in parts])


def quickest(made: Runners, segments: Array) -> Runners:
    """The one peer, in the one way, that answers a batch first."""
    calls = {
        (peer, way): lambda run=run: run(segments)
        for peer, found in made.items()
        for way, run in found.items()
    }
    peer, way = timing.fastest(calls)
    return {peer: {way: made[peer][way]}}


def measured(case: Case, *, rounds: int) -> dict[str, Any]:
    """Check that all agree, choose each peer's quickest way, and time them in turns."""
    difference = largest_difference(case)
    chosen, calls = {}, {OURS: case.ours}
    for peer, ways in case.peers.items():
        chosen[peer] = timing.fastest(ways)
        calls[f"{peer}, {chosen[peer]}" if len(ways) > 1 else peer] = ways[chosen[peer]]
    seconds = timing.interleaved(calls, rounds=min(rounds, case.most_rounds))
    return {
        "largest_difference": difference,
        "chosen": chosen,
        "results": timing.summaries(seconds, ours=OURS),
    }


def largest_difference(case: Case) -> float:
    """By how much anything that a peer says differs from what ours says.

    Raises:
        SystemExit: more than rounding explains, or the answers are all the same.
    """
    answers = case.ours()
    largest = 0.0
    if len(answers) > 1 and answers.std() < LEAST_DEVIATION:
        raise SystemExit(f"{case.title}: all answers are alike, which proves nothing")
    for peer, ways in case.peers.items():
        for way, call in ways.items():
            found = call()
            if found.shape != answers.shape:
                raise SystemExit(f"{case.title}: {peer} ({way}) gives {found.shape}")
            differences = np.abs(found - answers)
            difference = float(differences.max())
            if not (differences <= TOLERANCE * np.maximum(1, np.abs(answers))).all():
                raise SystemExit(
                    f"{case.title}: {peer} ({way}) and ours differ by {difference:.2g}, "
                    f"more than {TOLERANCE:g}"
                )
            largest = max(largest, difference)
    presenting.say(f"{case.title}: all answers agree within {largest:.1e}")
    return largest


if __name__ == "__main__":
    main()
