"""What the audit finds: against known sources, on copies made here, and among 10,000 clips.

python benchmarks/audit.py truth DATA       DATA has a column source, which is hidden and compared
python benchmarks/audit.py brute DATA       against correlating every pair of files
python benchmarks/audit.py copies DATA      copies of DATA are made and must be found
python benchmarks/audit.py scale [N_CLIPS]  synthetic clips of 5 s, some of which overlap

Each writes benchmarks/results/audit_*.json.
"""

import csv
import itertools
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from copies import COPIES, RATE, Make, encode
from stapes import audio, synthesis
from stapes.auditing import audit
from stapes.copies import waveform_key
from stapes.dataset import list_clips
from stapes.files import write_json
from stapes.sharing import N_THREADS

RESULTS = Path(__file__).parent / "results"
BRUTE_RATE, BRUTE_CORRELATION, BRUTE_LEAST = 4_000, 0.9, 2_400
"""Pairs whose overlap of at least 0.6 s correlates like this at 4 kHz are the same."""

CLIP_SECONDS = 5.0

Pair = tuple[str, str]


def main() -> None:
    name, *rest = sys.argv[1:] or ["help"]
    if name not in PARTS:
        sys.exit(__doc__)
    results = PARTS[name](*rest)
    data = f"_{Path(rest[0]).name}" if name != "scale" else ""
    write_json(RESULTS / f"audit_{name}{data}.json", results)


# ---- truth ----------------------------------------------------------------------------------


def truth(data: str) -> dict[str, Any]:
    """Pairs of one source: found without the column source, against that column.

    Where the column names recordings of which several takes were cut that do not overlap, as in
    ESC-10, nothing of it can be heard: then what matters is what was found beyond it.
    """
    folder = Path(data).resolve()
    rows = list(csv.DictReader((folder / "metadata.csv").open()))
    with tempfile.TemporaryDirectory() as hidden:
        for path in folder.iterdir():
            if path.name != "metadata.csv":
                Path(hidden, path.name).symlink_to(path)
        write_table(Path(hidden, "metadata.csv"), rows, without=("source", "fold"))
        results = audit(hidden)
    given = pairs_of({row["file_name"]: row["source"] for row in rows})
    found = pairs_of(results["sources"])
    fold = {row["file_name"]: row["fold"] for row in rows}
    proven = {tuple(sorted(f["files"])): f for f in results["findings"] if len(f["files"]) == 2}
    summary = {
        "n_files": results["n_files"],
        "n_sources_given": len({row["source"] for row in rows}),
        "n_sources_found": results["n_sources"],
        "pairs_given": len(given),
        "pairs_found": len(found),
        "recall": ratio(len(given & found), len(given)),
        "precision": ratio(len(given & found), len(found)),
        "proven_pairs": len(proven),
        "proven_pairs_across_given_folds": sum(fold[a] != fold[b] for a, b in proven),
        "seconds": results["seconds"],
        "missed": [
            {"files": pair, "largest_correlation": round(largest_correlation(folder, pair), 3)}
            for pair in sorted(given - found)
        ],
        "more": [
            explained(folder, pair, proven) | {"folds": [fold[name] for name in pair]}
            for pair in sorted(found - given)
        ],
    }
    tell({key: value for key, value in summary.items() if key not in ("missed", "more")})
    for entry in summary["more"]:
        tell(entry)
    return summary


def explained(folder: Path, pair: Pair, proven: dict[Pair, dict[str, Any]]) -> dict[str, Any]:
    """Why a pair is held to be of one source: its own plain correlation, or a chain of pairs."""
    if pair not in proven:
        return {"files": pair, "through": chain(pair, list(proven))}
    finding = proven[pair]
    whole, best = raw_correlations(folder, finding)
    return {
        "files": pair,
        "correlation": round(whole, 3),
        "correlation_of_best_half_second": round(best, 3),
        **{key: finding.get(key) for key in ("overlap_seconds", "similarity", "gain_db")},
    }


def chain(pair: Pair, links: Sequence[Pair]) -> list[str]:
    """The shortest way from one file to the other over proven pairs."""
    ways, seen = [[pair[0]]], {pair[0]}
    for way in ways:  # grows while it is walked
        if way[-1] == pair[1]:
            return way
        for link in links:
            if way[-1] in link and (other := link[link[0] == way[-1]]) not in seen:
                seen.add(other)
                ways.append([*way, other])
    return []


def write_table(path: Path, rows: Sequence[dict[str, str]], *, without: Iterable[str]) -> None:
    columns = [name for name in rows[0] if name not in without]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def pairs_of(sources: dict[str, str]) -> set[Pair]:
    members = defaultdict(list)
    for name, source in sorted(sources.items()):
        members[source].append(name)
    return {pair for names in members.values() for pair in itertools.combinations(names, 2)}


def raw_correlations(folder: Path, finding: dict[str, Any]) -> tuple[float, float]:
    """Plain normalised correlation at 16 kHz, no filter: of the overlap, and of its best 0.5 s."""
    first, second = (audio.read(folder / n, sample_rate=RATE).waveform for n in finding["files"])
    offset = round(finding.get("offset_seconds", 0.0) * RATE)
    aligned = [overlapping(first, second, lag) for lag in range(offset - 8, offset + 9)]
    a, b = max(aligned, key=lambda pair: abs(cosine(*pair)))
    half = RATE // 2
    pieces = [(a[i : i + half], b[i : i + half]) for i in range(0, len(a) - half + 1, half // 8)]
    return abs(cosine(a, b)), max((abs(cosine(*piece)) for piece in pieces), default=0.0)


def overlapping(first: np.ndarray, second: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = first[max(lag, 0) :], second[max(-lag, 0) :]
    n = min(len(a), len(b))
    return a[:n], b[:n]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / float(np.sqrt((a @ a) * (b @ b)) + 1e-9)


# ---- brute force ----------------------------------------------------------------------------


def brute(data: str) -> dict[str, Any]:
    """Every pair of files correlated at every offset, without fingerprints or flattening."""
    clips = list_clips(data).clips
    waveforms = [audio.read(clip.path, sample_rate=BRUTE_RATE).waveform for clip in clips]
    n = 1 << (2 * max(map(len, waveforms))).bit_length()
    spectra = [np.fft.rfft(waveform, n).astype(np.complex64) for waveform in waveforms]
    sums = [np.concatenate([[0.0], np.cumsum(w.astype(float) ** 2)]) for w in waveforms]
    found = {}
    for i, j in itertools.combinations(range(len(clips)), 2):
        products = np.fft.irfft(spectra[i] * np.conj(spectra[j]), n)
        best = best_cosine(products, sums[i], sums[j])
        if best >= BRUTE_CORRELATION:
            found[tuple(sorted((clips[i].name, clips[j].name)))] = best
    results = audit(data)
    proven = {tuple(sorted(f["files"])) for f in results["findings"] if len(f["files"]) == 2}
    summary = {
        "n_pairs": len(clips) * (len(clips) - 1) // 2,
        "found_by_brute_force": len(found),
        "found_by_audit": len(proven),
        "recall": ratio(len(proven & set(found)), len(found)),
        "only_brute_force": [
            [*pair, round(found[pair], 3)] for pair in sorted(set(found) - proven)
        ],
        "only_audit": sorted(proven - set(found)),
    }
    tell(summary)
    return summary


def largest_correlation(folder: Path, pair: Pair) -> float:
    """Of two files over every offset: low for takes of one recording that do not overlap."""
    first, second = (audio.read(folder / name, sample_rate=BRUTE_RATE).waveform for name in pair)
    n = 1 << (len(first) + len(second)).bit_length()
    products = np.fft.irfft(np.fft.rfft(first, n) * np.conj(np.fft.rfft(second, n)), n)
    sums = [np.concatenate([[0.0], np.cumsum(w.astype(float) ** 2)]) for w in (first, second)]
    return best_cosine(products, *sums)


def best_cosine(products: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Largest normalised correlation over all offsets with enough overlap, in which both sound.

    Args:
        products: sums of products at every lag.
        first: running sums of squares of the first waveform [T + 1].
        second: and of the second.
    """
    lengths = len(first) - 1, len(second) - 1
    lags = np.arange(BRUTE_LEAST - lengths[1], lengths[0] - BRUTE_LEAST + 1)
    start, stop = np.maximum(lags, 0), np.minimum(lengths[0], lags + lengths[1])
    energies = [first[stop] - first[start], second[stop - lags] - second[start - lags]]
    sounding = [
        e > 1e-3 * (stop - start) * total[-1] / len(total)
        for e, total in zip(energies, (first, second), strict=True)
    ]
    cosines = np.abs(products[lags]) / np.sqrt(np.maximum(energies[0] * energies[1], 1e-12))
    return float(np.max(np.where(sounding[0] & sounding[1], cosines, 0.0), initial=0.0))


# ---- copies ---------------------------------------------------------------------------------


def copies(data: str) -> dict[str, Any]:
    """Copies of every recording, one data set a kind: how many are found, and what else is."""
    clips = list_clips(data).clips
    read = [audio.read(clip.path, sample_rate=RATE).waveform for clip in clips]
    originals = list({waveform_key(waveform): waveform for waveform in read}.values())
    kinds = {
        name: run_copies(originals, make, seed=seed)
        for seed, (name, make) in enumerate(COPIES.items())
    }
    n_pairs = sum(kind["n"] for kind in kinds.values())
    n_found = sum(kind["found"] for kind in kinds.values())
    results = {"n_pairs": n_pairs, "recall": ratio(n_found, n_pairs), "kinds": kinds}
    tell({key: value for key, value in results.items() if key != "kinds"})
    return results


def run_copies(originals: Sequence[np.ndarray], make: Make, *, seed: int) -> dict[str, Any]:
    """Recall of pairs (made, made) that share audio, over all recordings long enough."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for i, waveform in enumerate(originals):
            made = make(waveform, rng)
            for side, (suffix, content) in zip("ab", made or (), strict=False):
                path = Path(folder, side, f"{i:05d}{suffix}")
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            names += [i] if made else []
        results = audit(folder)
    number = {name: int(Path(name).stem) for name in results["sources"]}
    found = {
        frozenset(pair)
        for finding in results["findings"]
        for pair in itertools.combinations(finding["files"], 2)
    }
    hits = {number[min(pair)] for pair in found if len({number[n] for n in pair}) == 1}
    across = {
        tuple(sorted(number[n] for n in pair))
        for pair in found
        if len({number[n] for n in pair}) == 2
    }
    result = {
        "n": len(names),
        "found": len(hits),
        "recall": ratio(len(hits), len(names)),
        "missed": sorted(set(names) - hits),
        "pairs_of_different_originals": len(across),
        "seconds": results["seconds"],
    }
    tell(result)
    return result | {"different": sorted(across)}


# ---- scale ----------------------------------------------------------------------------------


def scale(n_clips: str = "10000") -> dict[str, Any]:
    """Made-up barks and meows of 5 s in a room, a tenth of which overlap another one.

    One clip in twenty is worse than a recording ever is: a steady tone, hum or silence, with no
    noise over it but that of rounding. Those must not be taken for each other.
    """
    n = int(n_clips)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            shared = dict(pool.starmap(write_scene, [(folder, i) for i in range(n)], chunksize=50))
        tell({"seconds_to_synthesise": time.perf_counter() - started})
        # A process of its own, so that its peak memory is that of the audit alone.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results, peak_bytes = pool.apply(measured_audit, (folder,))
    given = {(i - 1, i): seconds for i, seconds in shared.items() if seconds}
    found = {
        tuple(sorted(int(Path(name).stem) for name in finding["files"]))
        for finding in results["findings"]
        if len(finding["files"]) == 2
    }
    missed = sorted(set(given) - found)
    summary = {
        "n_clips": n,
        "hours": n * CLIP_SECONDS / 3600,
        "seconds": results["seconds"],
        "peak_megabytes": peak_bytes / 1e6,
        "pairs_made": len(given),
        "recall": ratio(len(given) - len(missed), len(given)),
        "precision": ratio(len(set(given) & found), len(found)),
        "missed_shared_seconds": sorted(given[pair] for pair in missed),
        "false_pairs": sorted(found - set(given)),
        "n_threads": N_THREADS,
    }
    tell(summary)
    return summary


def write_scene(folder: str, i: int) -> tuple[int, float]:
    """Write clip i; returns how many seconds it shares with clip i - 1, 0 for nothing."""
    rng = np.random.default_rng(i)
    length, shared = round(CLIP_SECONDS * RATE), 0.0
    if i % 10 == 1:
        # The recording that clip i - 1 is the beginning of, heard further on.
        shared = float(np.round(np.random.default_rng(i).uniform(0.5, 4.5), 2))
        scene = make_scene(i - 1, 2 * CLIP_SECONDS)[length - round(shared * RATE) :][:length]
        scene = scene * 10 ** (rng.uniform(-15, 0) / 20)
    elif i % 20 == 5:
        time_axis = np.arange(length) / RATE
        phase, hertz = rng.uniform(0, 2 * np.pi), rng.choice([50, 440, 1000])
        scene = rng.choice([0.0, 0.01, 0.5]) * np.sin(2 * np.pi * hertz * time_axis + phase)
    else:
        seconds = 2 * CLIP_SECONDS if i % 10 == 0 else CLIP_SECONDS
        scene = make_scene(i, seconds)[:length]
    suffix, content = encode(scene) if i % 10 != 1 or i % 20 == 1 else encode(scene, RATE, ".ogg")
    path = Path(folder, ("bark", "meow")[i // 10 % 2], f"{i:06d}{suffix}")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return i, shared


def make_scene(i: int, seconds: float) -> np.ndarray:
    """A recording that depends on i and its length alone."""
    label = ("bark", "meow")[i // 10 % 2]
    return synthesis.clip(label, np.random.default_rng(i), seconds=seconds)


def measured_audit(folder: str) -> tuple[dict[str, Any], int]:
    """The audit, and the most memory that this process had, in bytes."""
    results = audit(folder)
    return results, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def tell(results: dict[str, Any]) -> None:
    sys.stdout.write(" ".join(f"{key}={value}" for key, value in results.items()) + "\n")
    sys.stdout.flush()


PARTS = {"truth": truth, "brute": brute, "copies": copies, "scale": scale}

if __name__ == "__main__":
    main()
