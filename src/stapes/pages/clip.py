"""One clip taken apart, as figures and as one HTML page. Computes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from stapes import clip_plots
from stapes.colours import class_colour
from stapes.drawing import NARROW, WIDE, as_svg, save_figure
from stapes.files import write_text
from stapes.inspection import ClipExplanation
from stapes.pages.media import audio_uri
from stapes.pages.rendering import render
from stapes.progress import Progress, silent

PAGE_FILE, FIGURES = "index.html", ("when", "layers", "contributions", "filters")
FILES = (PAGE_FILE, *(f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg")))
"""What is written."""

MAX_AUDIO_SAMPLES = 960_000
"""What the player gets at most (a minute at 16 kHz), so that a page stays under 5 MB."""

MAX_CLASSES = 12
"""Classes whose probabilities are shown."""

Draw = Callable[[float], Figure]
"""Draws a figure for a width in inches."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure on a page, drawn for a desk and for a phone, and what to see in it.

    Attributes:
        name: begins the ids of its elements.
        title: above it.
        words: below it.
        wide: the drawing for a desk and for paper.
        narrow: the drawing for a phone.
        half: whether two such figures stand side by side on a desk.
    """

    name: str
    title: str
    words: str
    wide: Markup
    narrow: Markup
    half: bool


def render_explanation(
    explanation: ClipExplanation,
    figures: Mapping[str, Draw],
    *,
    name: str,
    model: str,
    notes: Sequence[str] = (),
) -> str:
    """The page of one clip: the answer, the sound, and how the one came from the other.

    Args:
        explanation: of the clip.
        figures: what :func:`explanation_figures` makes of it.
        name: what the clip is called.
        model: what the model is called.
        notes: what prediction says is unusual about it, in sentences.
    """
    config = explanation.config
    ranked = sorted(enumerate(explanation.probabilities.tolist()), key=lambda pair: -pair[1])
    played = explanation.waveform[: explanation.n_samples][:MAX_AUDIO_SAMPLES]
    return render(
        "explain.html",
        explanation=explanation,
        config=config,
        name=name,
        model=model,
        notes=notes,
        shares=[(config.classes[i], p, class_colour(i)) for i, p in ranked[:MAX_CLASSES]],
        colour=class_colour(config.classes.index(explanation.label)),
        seconds=explanation.n_samples / config.sample_rate,
        played_seconds=len(played) / config.sample_rate,
        audio=audio_uri(played, sample_rate=config.sample_rate),
        pictures=_pictures(figures, _clip_words(explanation)),
    )


def write_explanation(
    folder: str | Path,
    explanation: ClipExplanation,
    *,
    name: str,
    model: str = "",
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Path:
    """Write the figures of a clip as PNG and SVG, and the page that shows them.

    Args:
        folder: where; it must exist.
        explanation: of the clip.
        name: what the clip is called.
        model: what the model is called.
        notes: what prediction says is unusual about it, in sentences.
        progress: told how it goes.

    Returns:
        The page's path.
    """
    figures = {key: cache(draw) for key, draw in explanation_figures(explanation).items()}
    for n_done, (key, draw) in enumerate(figures.items()):
        progress("drawing", n_done, len(figures), key)
        save_figure(draw(WIDE), Path(folder) / key)
    progress("drawing", len(figures), len(figures), PAGE_FILE)
    page = Path(folder) / PAGE_FILE
    write_text(page, render_explanation(explanation, figures, name=name, model=model, notes=notes))
    return page


def explanation_figures(explanation: ClipExplanation) -> dict[str, Draw]:
    """The figures of a clip by name, in the order of the page."""
    return {
        "when": lambda width: clip_plots.plot_strip(explanation, width=width),
        "layers": lambda width: clip_plots.plot_layers(explanation, width=width),
        "contributions": lambda width: clip_plots.plot_contributions(explanation, width=width),
        "filters": lambda width: clip_plots.plot_filters(explanation.first_layer, width=width),
    }


def _clip_words(explanation: ClipExplanation) -> dict[str, tuple[str, str]]:
    """Title and sentence for every figure of a clip."""
    against, towards = clip_plots.sides(explanation.config.classes, explanation.row)
    left = f"for {against}" if len(explanation.head_bias) == 1 else "against it"
    step_ms = 1000 * explanation.timeline.step_seconds
    raw = explanation.first_layer.raw_kernels is not None
    logit = explanation.logits[explanation.row]
    sum_up = f" Weighed by how many segments heard it, all together make the logit {logit:+.2f}."
    sum_up = sum_up.replace("-", "\N{MINUS SIGN}")
    return {
        "when": (
            "When it heard what",
            f"Each bar is {step_ms:.3g} ms of sound: up speaks for {towards}, down for {against}."
            + sum_up
            if len(explanation.head_bias) == 1
            else f"Each column is {step_ms:.3g} ms of sound: in a row's own colour it speaks for"
            " that class, in grey against it.",
        ),
        "layers": (
            "The sound on its way through the layers",
            "One segment from top to bottom. Every layer keeps the time axis but halves its"
            " detail; each line is a filter, in stronger colour where it responds more. The last"
            " row is what each moment adds to the answer."
            if set(explanation.config.strides) == {2}
            else "One segment from top to bottom, coarser with every layer; each line is a filter,"
            " in stronger colour where it responds more. The last row is what each moment adds.",
        ),
        "contributions": (
            "How one segment's answer adds up",
            "For the segment that is marked above: how much each filter of the last layer heard on"
            f" average, times its weight, one step after the other: steps to the right speak for"
            f" {towards}, to the left {left}. They end at this segment's logit. The clip's own"
            " answer, at the top, is the mean over its segments, and then calibrated.",
        ),
        "filters": (
            "The first layer's filters",
            "Dots are the numbers each filter multiplies neighbouring samples by"
            + (" (hollow: before normalisation)" if raw else "")
            + "; the curve shows which pitches it lets through. Grey curves are the other filters.",
        ),
    }


def _pictures(figures: Mapping[str, Draw], words: Mapping[str, tuple[str, str]]) -> list[Picture]:
    return [_picture(name, draw, *words[name]) for name, draw in figures.items()]


def _picture(name: str, draw: Draw, title: str, words: str) -> Picture:
    wide = draw(WIDE)
    return Picture(
        name,
        title,
        words,
        wide=Markup(as_svg(wide, name=f"{name}-wide")),
        narrow=Markup(as_svg(draw(NARROW), name=f"{name}-narrow")),
        half=wide.get_figwidth() < 0.55 * WIDE,
    )
