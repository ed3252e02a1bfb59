"""Counts of what was taken for what -> a table with shades, and its largest mistakes in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stapes.colours import class_colour
from stapes.pages.verdict import part
from stapes.pages.wording import known

MAX_NAMED = 6
"""The largest mistakes that are named."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """What clips of each class were taken for.

    Attributes:
        classes: in order [C].
        rows: counts, and their share of the row [C][C].
        recall: what was found of each class: its share, nan if there was nothing to find [C].
        totals: clips of each class [C].
        colours: of each class [C].
        n_repeats: how often each clip was judged, once for each seed.
        largest: the most frequent mistakes: what it was, what it was taken for, how often.
    """

    classes: tuple[str, ...]
    rows: tuple[tuple[tuple[int, float], ...], ...]
    recall: tuple[float | None, ...]
    totals: tuple[int, ...]
    colours: tuple[str, ...]
    n_repeats: int
    largest: tuple[tuple[str, str, int], ...]


def confusion(metrics: Mapping[str, Any]) -> Confusion | None:
    """The confusion of clips; None if nothing was judged."""
    clips = part(metrics, "clips")
    counts, recall = clips.get("confusion"), part(clips, "recall")
    if not counts or not recall or not clips.get("n"):
        return None
    classes = tuple(recall)
    totals = tuple(sum(row) for row in counts)
    wrong = [
        (classes[i], classes[j], n)
        for i, row in enumerate(counts)
        for j, n in enumerate(row)
        if i != j and n
    ]
    return Confusion(
        classes,
        tuple(
            tuple((n, n / max(total, 1)) for n in row)
            for row, total in zip(counts, totals, strict=True)
        ),
        tuple(share if known(share) else None for share in recall.values()),
        totals,
        tuple(map(class_colour, range(len(classes)))),
        round(sum(totals) / clips["n"]),
        tuple(sorted(wrong, key=lambda pair: -pair[2])[:MAX_NAMED]),
    )
