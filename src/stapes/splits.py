"""Splits and folds by source, stratified by label; pure functions of the clips and a seed."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stapes.clips import Clip, listing, printable
from stapes.errors import DataError, UsageError
from stapes.negatives import beside_negatives, is_negative

Counts = NDArray[np.int64]
Indices = list[int]
Pair = tuple[Sequence[int], Sequence[int]]
"""The clips to learn from and those to judge."""

Pairs = Sequence[Pair]
"""Those of each fold."""

N_TRIES = 32
"""Random orders tried for a split; the one nearest to the wanted share of each class is kept."""

N_MOVES, NOISE = 5_000, 0.2
"""Moves of sources by which a split is mended where none of these will do, and the share of them
that is random."""


def split(clips: Sequence[Clip], *, share: float, seed: int) -> tuple[Indices, Indices]:
    """Hold out a share of every class, whole sources only.

    Args:
        clips: the clips.
        share: part of each class to hold out, above 0 and below 1.
        seed: another seed, another split; the same seed, the same split.

    Returns:
        Ascending indices of the rest and of the held-out clips; no source is on both sides,
        every class is.

    Raises:
        UsageError: the share is out of range.
        DataError: one class only, or a class with a single source.
    """
    if not (math.isfinite(share) and 0.0 < share < 1.0):
        raise UsageError(f"share is {share!r}: give a number above 0 and below 1")
    sources, counts = _count_by_source(clips)
    _check_enough_sources(clips, counts, n_needed=2, purpose="to hold some out")
    held = _best_try(counts, share=share, rng=np.random.default_rng(seed))
    held_sources = {sources[i] for i in np.flatnonzero(held)}
    return _partition(clips, [clip.source in held_sources for clip in clips])


def _best_try(counts: Counts, *, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which sources to hold out: [n_sources]; the first try that no other can beat ends it."""
    best, least = np.zeros(len(counts), dtype=bool), math.inf
    for _ in range(N_TRIES):
        held = _try_split(counts, share=share, order=rng.permutation(len(counts)))
        error = _split_error(counts, held, share=share)
        if error < least:
            best, least = held, error
        distance = np.abs(counts[held].sum(axis=0) - share * counts.sum(axis=0))
        if math.isfinite(error) and np.all(distance <= 0.5):
            break
    return best if math.isfinite(least) else _mended(counts, held, rng=rng)


def _mended(
    counts: Counts, held: NDArray[np.bool_], *, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Move sources one by one to the other side until no class is on one side only.

    The next is one of a class that is, and mostly the one after which the fewest are (Selman, Kautz
    and Cohen 1994, "Noise strategies for improving local search").
    """
    present, held = counts > 0, held.copy()
    n_sources = present.sum(axis=0)

    def one_sided(n_held: NDArray[np.int64]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (n_sources > 1) & ((n_held == 0) | (n_held == n_sources))
        return found

    n_held = present[held].sum(axis=0)
    for _ in range(N_MOVES):
        wrong = np.flatnonzero(one_sided(n_held))
        if not len(wrong):
            return held
        movable = rng.permutation(np.flatnonzero(present[:, rng.choice(wrong)]))
        step = np.where(held[movable], -1, 1)[:, None]
        n_wrong = one_sided(n_held + step * present[movable]).sum(axis=1)
        chosen = 0 if rng.random() < NOISE else int(n_wrong.argmin())
        n_held += step[chosen] * present[movable[chosen]]
        held[movable[chosen]] ^= True
    raise DataError(
        "no split was found that leaves every class on both sides without dividing a source: add"
        " sources to the smallest classes, or give another --seed"
    )


def _try_split(counts: Counts, *, share: float, order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Hold out sources in this order while that brings the classes nearer to their share."""
    totals = counts.sum(axis=0)
    target = share * totals
    held = np.zeros(len(counts), dtype=bool)
    held_counts = np.zeros_like(totals)
    rest_sources = (counts > 0).sum(axis=0)
    for i in order:
        present = np.flatnonzero(counts[i])
        if np.any(rest_sources[present] == 1):
            continue  # the last source of a class stays
        own, missed = counts[i, present], held_counts[present] - target[present]
        before = np.sum((missed / totals[present]) ** 2)
        after = np.sum(((missed + own) / totals[present]) ** 2)
        if np.any(held_counts[present] == 0) or after < before:
            held[i] = True
            held_counts[present] += own
            rest_sources[present] -= 1
    return held


def _split_error(counts: Counts, held: NDArray[np.bool_], *, share: float) -> float:
    """Largest distance of a class from its share; infinite if a class is on one side only."""
    part = counts[held].sum(axis=0) / counts.sum(axis=0)
    divisible = (counts > 0).sum(axis=0) > 1  # of negatives there may be a single source
    one_sided = np.any(divisible & ((part == 0) | (part == 1)))
    return math.inf if one_sided else float(np.abs(part - share).max())


def folds(
    clips: Sequence[Clip], *, n_folds: int = 5, seed: int, allow_leaks: bool = False
) -> list[tuple[Indices, Indices]]:
    """Cross-validation folds: those the data gives, else grouped and stratified ones.

    Args:
        clips: the clips; if any has a fold, all must.
        n_folds: number of folds where the data gives none, at least 2.
        seed: for the folds made here; without effect where the data gives them.
        allow_leaks: whether to learn from clips whose source is in the fold to be judged, where
            the data gives folds that divide it.

    Returns:
        For each fold the ascending indices of the other clips and of its own. Every clip is in
        one fold; what shares a source with a fold is not among the others, unless allowed.

    Raises:
        UsageError: fewer than 2 folds.
        DataError: some clips without a fold, or a class that is
            missing from the clips left to train on.
    """
    given = [clip.fold for clip in clips]
    fold_of = (
        _given_folds(clips)
        if any(fold is not None for fold in given)
        else _make_folds(clips, n_folds=n_folds, seed=seed)
    )
    pairs = [_partition(clips, [f == fold for f in fold_of]) for fold in sorted(set(fold_of))]
    if not allow_leaks:
        pairs = [_purge(clips, *pair) for pair in pairs]
    if len(pairs) < 2:
        raise DataError("all clips are in one fold: give at least two, or remove the column fold")
    for pair in pairs:
        _check_classes_left(clips, *pair)
    return pairs


def given_split(
    clips: Sequence[Clip], *, allow_leaks: bool = False
) -> tuple[Indices, Indices] | None:
    """The train and test part that the data itself gives; None if any clip has none.

    What shares a source with the test part is in neither, unless ``allow_leaks``.
    """
    parts = {clip.part for clip in clips}
    if parts != {"train", "test"}:
        return None
    pair = _partition(clips, [clip.part == "test" for clip in clips])
    if not allow_leaks:
        pair = _purge(clips, *pair)
    _check_classes_left(clips, *pair)
    if all(is_negative(clips[i].label) for i in pair[1]):
        told = beside_negatives(clips[i].label for i in pair[1])
        raise DataError(f"the test part holds nothing of the classes{told}: add recordings of them")
    return pair


def check_undivided(clips: Sequence[Clip]) -> None:
    """Raise DataError if the data's own split divides a source: it would measure memory."""
    splits: dict[str, list[int | str | None]] = {
        "fold": [clip.fold for clip in clips],
        "part": [clip.part for clip in clips],
    }
    for what, parts in splits.items():
        of_source: dict[str, dict[int | str, Clip]] = defaultdict(dict)
        for clip, part in zip(clips, parts, strict=True):
            if part is not None:
                of_source[clip.source].setdefault(part, clip)
        leaking = [found for found in of_source.values() if len(found) > 1]
        if leaking:
            (one, first), (other, second) = list(leaking[0].items())[:2]
            raise DataError(
                f"{len(leaking)} source(s) are on two sides of the data's own split: "
                f"{printable(first.title)} ({what} {one}) and {printable(second.title)} "
                f"({what} {other}) are the same recording; --leaks regroup splits anew, --leaks "
                "allow keeps the split as it is"
            )


def _purge(clips: Sequence[Clip], rest: Indices, held: Indices) -> tuple[Indices, Indices]:
    """Leave out of the rest what shares a source with what is held out."""
    sources = {clips[i].source for i in held}
    return [i for i in rest if clips[i].source not in sources], held


def _given_folds(clips: Sequence[Clip]) -> list[int]:
    missing = [clip.name for clip in clips if clip.fold is None]
    if missing:
        raise DataError(
            f"column fold is empty for {len(missing)} of {len(clips)} clips "
            f"({listing(missing)}): fill it for all, or remove it"
        )
    return [fold for clip in clips if (fold := clip.fold) is not None]


def _make_folds(clips: Sequence[Clip], *, n_folds: int, seed: int) -> list[int]:
    """Put each source, the largest first, where its classes are rarest: fold 1..n of each clip."""
    if n_folds < 2:
        raise UsageError(f"n_folds is {n_folds}: give at least 2")
    sources, counts = _count_by_source(clips)
    _check_enough_sources(clips, counts, n_needed=n_folds, purpose=f"for {n_folds} folds")
    order = np.random.default_rng(seed).permutation(len(sources))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    weights = 1.0 / counts.sum(axis=0).astype(float) ** 2
    loads = np.zeros((n_folds, counts.shape[1]), dtype=np.int64)
    fold_of = {}
    for i in order:
        # Growth of the weighted sum of squares of the loads, up to a constant.
        growth = loads @ (weights * counts[i])
        fold = int(np.lexsort((loads.sum(axis=1), growth))[0])
        loads[fold] += counts[i]
        fold_of[sources[i]] = fold + 1
    return [fold_of[clip.source] for clip in clips]


def _count_by_source(clips: Sequence[Clip]) -> tuple[list[str], Counts]:
    """Sorted sources and the clips of each class they hold: [n_sources, n_classes]."""
    sources = sorted({clip.source for clip in clips})
    classes = sorted({clip.label for clip in clips})
    row = {source: i for i, source in enumerate(sources)}
    column = {label: i for i, label in enumerate(classes)}
    counts = np.zeros((len(sources), len(classes)), dtype=np.int64)
    for clip in clips:
        counts[row[clip.source], column[clip.label]] += 1
    return sources, counts


def _check_enough_sources(
    clips: Sequence[Clip], counts: Counts, *, n_needed: int, purpose: str
) -> None:
    labels = sorted({clip.label for clip in clips})
    classes = [label for label in labels if not is_negative(label)]
    counts = counts[:, [label in classes for label in labels]]
    if len(classes) < 2:
        found = f"one class, {printable(classes[0])}" if classes else "no clips"
        raise DataError(
            f"the data hold {found}{beside_negatives(labels)}: give at least two classes"
        )
    n_sources = (counts > 0).sum(axis=0)
    scarce = int(n_sources.argmin())
    if n_sources[scarce] < n_needed:
        raise DataError(
            f"class {printable(classes[scarce])} has clips of {n_sources[scarce]} source(s), and "
            f"{n_needed} are needed {purpose}: add recordings or remove the class"
        )


def _check_classes_left(clips: Sequence[Clip], rest: Indices, held: Indices) -> None:
    """Raise DataError unless every class is left to learn from."""
    classes = {clip.label for clip in clips if not is_negative(clip.label)}
    missing = sorted(classes - {clips[i].label for i in rest})
    if missing:
        raise DataError(
            f"nothing of class {printable(missing[0])} is left to learn from beside "
            f"{printable(clips[held[0]].name)} and what is held out with it: spread the class over "
            "more folds and sources"
        )


def _partition(clips: Sequence[Clip], held: Sequence[bool]) -> tuple[Indices, Indices]:
    rest = [i for i in range(len(clips)) if not held[i]]
    return rest, [i for i in range(len(clips)) if held[i]]
