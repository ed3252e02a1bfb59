"""Which clips share audio: candidates by fingerprint, each proved or dropped, and remembered.

Of every clip a digest and a fingerprint are kept, not the waveform. Clips with equal digests are
copies, and one of them stands for all. Of the rest, fingerprints give candidates, and the two
waveforms of each are fetched again and correlated.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import soxr

from stapes.alignment import Alignment, align
from stapes.clips import Clip
from stapes.copies import waveform_key
from stapes.errors import StapesError
from stapes.files import write_json
from stapes.fingerprint import RATE_HZ, Candidate, Fingerprint, find_candidates, fingerprint
from stapes.progress import Progress, silent
from stapes.segments import Waveform

Item = TypeVar("Item")
Result = TypeVar("Result")

VERSION = 3
"""Raised when the same waveforms give another result; a part of the names in the cache."""

WHOLE = 0.9
"""Two clips are the same audio, not an overlap, if this part of the longer one lies beside the
other, and this part of what can be heard there is the same."""

N_THREADS = 2
"""Clips heard or pairs compared at a time; NumPy releases the interpreter."""

N_REMEMBERED = 4
"""Waveforms kept while candidates, which come in order, are compared."""

N_CACHED = 100
"""Results kept in the cache; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Clips that share audio, or one clip with something wrong.

    Attributes:
        kind: "same bytes", "same samples", "same audio" (all of it, at another level, rate or in
            another format), "overlap", "silent", or a flag of reading, such as "damaged".
        clips: indices of the clips, ascending.
        note: what reading says, for findings of one clip.
        alignment: where two clips agree; None for exact copies and for findings of one clip.
    """

    kind: str
    clips: tuple[int, ...]
    note: str = ""
    alignment: Alignment | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What is kept of a clip.

    Attributes:
        key: digest of the samples, None for silence.
        prints: hashes for finding candidates.
        duration_seconds: length.
    """

    key: bytes | None
    prints: Fingerprint
    duration_seconds: float


def hear(waveform: Waveform) -> Heard:
    """Digest and fingerprint of a waveform [T] at :data:`stapes.fingerprint.RATE_HZ`."""
    return Heard(waveform_key(waveform), fingerprint(waveform), len(waveform) / RATE_HZ)


def find_shared(
    clips: Sequence[Clip],
    waveforms: Sequence[Waveform],
    *,
    sample_rate: int,
    progress: Progress = silent,
    cache: Path | None = None,
) -> list[Finding]:
    """Find the clips that share audio.

    Args:
        clips: the clips; those of one file are not compared with each other.
        waveforms: mono float32 [T] of each, T its own.
        sample_rate: Hz.
        progress: told what is being done.
        cache: folder where results are remembered by the content of the waveforms, such as
            :func:`cache_folder`; None for no memory.

    Returns:
        Findings of kinds "same samples", "same audio" and "overlap", by their clips.
    """
    keys = [waveform_key(waveform) for waveform in waveforms]
    path = None if cache is None else cache / _cache_name(clips, keys, sample_rate=sample_rate)
    known = None if path is None else _recall(path)
    if known is not None:
        return known

    def waveform_of(i: int) -> Waveform:
        return _resampled(waveforms[i], sample_rate)

    heard = []
    for result in in_threads(lambda i: hear(waveform_of(i)), range(len(clips))):
        heard.append(result)
        progress("listening", len(heard), len(clips), "")
    found = compare(clips, heard, waveform_of=waveform_of, progress=progress)
    if path is not None:
        _remember(path, found)
    return found


def compare(
    clips: Sequence[Clip],
    heard: Sequence[Heard],
    *,
    waveform_of: Callable[[int], Waveform],
    progress: Progress = silent,
) -> list[Finding]:
    """Find the clips that share audio from what was kept of them.

    Args:
        clips: the clips.
        heard: what was kept of each.
        waveform_of: fetches the waveform of a clip, at :data:`stapes.fingerprint.RATE_HZ`.
        progress: told what is being done.

    Returns:
        Findings of kinds "same samples", "same audio" and "overlap", by their clips.
    """
    groups = _copies(heard)
    copies = [
        Finding("same samples", group)
        for group in groups
        if len({clips[i].path for i in group}) > 1
    ]
    pairs = _pairs(clips, heard, [group[0] for group in groups])
    fetch = lru_cache(N_REMEMBERED)(waveform_of)

    def prove(pair: tuple[int, int]) -> Finding | None:
        return _prove(pair, pairs[pair], heard=heard, fetch=fetch)

    overlaps: list[Finding] = []
    for n_done, finding in enumerate(in_threads(prove, list(pairs)), start=1):
        overlaps += [finding] if finding is not None else []
        progress("comparing", n_done, len(pairs), f"{len(overlaps)} pairs share audio")
    return sorted([*copies, *overlaps], key=lambda finding: finding.clips)


def _copies(heard: Sequence[Heard]) -> list[tuple[int, ...]]:
    """Clips with the same samples, a clip without copies as a group of one; no silent ones."""
    groups = defaultdict(list)
    for i, one in enumerate(heard):
        if one.key is not None:
            groups[one.key].append(i)
    return [tuple(group) for group in groups.values()]


def _pairs(
    clips: Sequence[Clip], heard: Sequence[Heard], chosen: Sequence[int]
) -> dict[tuple[int, int], list[Candidate]]:
    """Candidates among the chosen clips by pair, but for events of one file."""
    pairs = defaultdict(list)
    for candidate in find_candidates([heard[i].prints for i in chosen]):
        pair = chosen[candidate.first], chosen[candidate.second]
        if clips[pair[0]].path != clips[pair[1]].path:
            pairs[pair].append(candidate)
    return dict(pairs)


def _prove(
    pair: tuple[int, int],
    candidates: Sequence[Candidate],
    *,
    heard: Sequence[Heard],
    fetch: Callable[[int], Waveform],
) -> Finding | None:
    """The first candidate offset of a pair at which they share audio."""
    first, second = (fetch(i) for i in pair)
    for candidate in candidates:
        found = align(first, second, offset_seconds=candidate.offset_seconds)
        if found is not None:
            kind = "same audio" if _is_whole(found, *(heard[i] for i in pair)) else "overlap"
            return Finding(kind, pair, alignment=found)
    return None


def _is_whole(found: Alignment, first: Heard, second: Heard) -> bool:
    """Whether all of two clips is the same audio."""
    end = min(first.duration_seconds, found.offset_seconds + second.duration_seconds)
    overlap = end - max(0.0, found.offset_seconds)
    longest = max(first.duration_seconds, second.duration_seconds)
    return overlap >= WHOLE * longest and found.agreement >= WHOLE


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Results in the order of the items, worked out in threads."""
    pool = ThreadPoolExecutor(N_THREADS)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _resampled(waveform: Waveform, sample_rate: int) -> Waveform:
    if sample_rate == RATE_HZ:
        return waveform
    resampled: Waveform = soxr.resample(waveform, sample_rate, RATE_HZ)
    return resampled


def cache_folder() -> Path | None:
    """``$XDG_CACHE_HOME/stapes``, else ``~/.cache/stapes``; None where there is no home folder."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(given if os.path.isabs(given) else os.path.expanduser("~/.cache"), "stapes")
    return folder if folder.is_absolute() else None


def _cache_name(clips: Sequence[Clip], keys: Sequence[bytes | None], *, sample_rate: int) -> str:
    """A name that depends on all that :func:`find_shared` depends on."""
    files = {path: n for n, path in enumerate(dict.fromkeys(clip.path for clip in clips))}
    content = [
        (files[clip.path], None if key is None else key.hex())
        for clip, key in zip(clips, keys, strict=True)
    ]
    told = json.dumps([VERSION, sample_rate, content]).encode()
    return f"audit-{hashlib.blake2b(told, digest_size=16).hexdigest()}.json"


def _recall(path: Path) -> list[Finding] | None:
    """A remembered result; None if there is none that can be read."""
    try:
        entries = json.loads(path.read_text())
        return [
            Finding(
                entry["kind"],
                tuple(entry["clips"]),
                alignment=entry["alignment"] and Alignment(**entry["alignment"]),
            )
            for entry in entries
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _remember(path: Path, findings: Sequence[Finding]) -> None:
    """Write a result down, if that is possible, and forget the oldest."""
    with suppress(OSError, StapesError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, [asdict(finding) for finding in findings])
        known = sorted(path.parent.glob("audit-*.json"), key=os.path.getmtime, reverse=True)
        for old in known[N_CACHED:]:
            old.unlink()
