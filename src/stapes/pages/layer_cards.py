"""Explanations -> what a page draws of a segment on its way through the layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from stapes.colours import ACCENT, PAGE_MUTED, class_colour
from stapes.inspection import ClipExplanation, strongest_columns
from stapes.pages.listening import outline
from stapes.pages.media import picture_uri

MAX_EXPLAINED = 4
"""Classes of which one recording is followed through the layers."""

N_COLUMNS, HEIGHT = 300, 40
"""Points across a layer, and the height of the drawing of what each frame adds."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The activations of one layer as a picture; places in percent of the segment."""

    words: str
    left: float
    width: float
    picture: str


@dataclass(frozen=True, slots=True)
class Stack:
    """A segment on its way through the layers.

    Attributes:
        label: the class of the recording.
        answer: the class it was taken for.
        share: the probability of that class.
        colour: of that class.
        samples: outline of the segment.
        layers: from the first to the last.
        n_frames: of the last layer.
        bars: bars of what each last frame adds to the evidence, for and against the answer:
            SVG paths with their colours.
    """

    label: str
    answer: str
    share: float
    colour: str
    samples: str
    layers: tuple[Layer, ...]
    n_frames: int
    bars: tuple[tuple[str, str], ...]


def stacks(explanations: Mapping[str, ClipExplanation] | None) -> list[Stack]:
    """One stack for each of the first classes."""
    chosen = islice((explanations or {}).items(), MAX_EXPLAINED)
    return [_stack(label, explanation) for label, explanation in chosen]


def _stack(label: str, explanation: ClipExplanation) -> Stack:
    segment, classes, row = explanation.segment, explanation.config.classes, explanation.row
    answer = classes.index(explanation.label)
    towards = segment.frame_contributions[row]
    if len(classes) == 2 and answer == 0:
        towards = -towards  # one logit speaks for the second class
    other = class_colour(1 - answer) if len(classes) == 2 else PAGE_MUTED
    colours = class_colour(answer), other
    drawn = zip(_bars(towards), colours, strict=True)
    return Stack(
        label=label,
        answer=explanation.label,
        share=explanation.probability,
        colour=colours[0],
        samples=outline(segment.input, n_columns=N_COLUMNS, height=HEIGHT),
        layers=tuple(_layer(explanation, n) for n in range(1, len(segment.activations) + 1)),
        n_frames=len(towards),
        bars=tuple(drawn),
    )


def _layer(explanation: ClipExplanation, number: int) -> Layer:
    """Activations of one layer at their time, quiet ones lifted by the square root."""
    segment, seconds = explanation.segment, explanation.segment.times_seconds[number]
    activations = segment.activations[number - 1]  # [T, C]
    columns, group = strongest_columns(activations, n_columns=N_COLUMNS)
    step = float(seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1)
    begin = float(seconds[0]) - step / 2 - segment.start_seconds
    share = 100 / explanation.config.segment_seconds
    strongest = float(columns.max()) or 1.0
    return Layer(
        words=f"{number} · {len(seconds):,} × {activations.shape[1]}",
        left=round(begin * share, 2),
        width=round(len(columns) * group * step * share, 2),
        picture=picture_uri(np.sqrt(np.maximum(columns.T, 0) / strongest), colour=ACCENT),
    )


def _bars(added: NDArray[np.float64]) -> Sequence[str]:
    """Upright bars, up for the answer and down against it, one unit wide: [T] -> 2 paths."""
    half = HEIGHT / 2
    lengths = added / (float(np.abs(added).max(initial=0)) or 1.0) * half
    return [
        "".join(
            f"M{i}.5 {half:g}v{-length:.3g}"
            for i, length in enumerate(lengths)
            if length * sign > 0
        )
        for sign in (1, -1)
    ]
