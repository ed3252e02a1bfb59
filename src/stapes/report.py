"""Figures and numbers -> one HTML page that needs no network and no scripts. Computes nothing."""

import base64
import io
import math
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from stapes import __version__, clip_plots, plots
from stapes.drawing import NARROW, WIDE, as_svg, class_colour, save_figure
from stapes.files import write_text
from stapes.inspection import ClipExplanation
from stapes.plots import Rates
from stapes.segments import Waveform

PAGE_FILE = "index.html"

MAX_AUDIO_SAMPLES = 960_000
"""What the player gets at most (a minute at 16 kHz), so that a page stays under 5 MB."""

MAX_CLASSES = 12
"""Classes whose examples and curves are drawn; numbers are given for all."""

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


def render_explanation(explanation: ClipExplanation, *, name: str, model: str = "") -> str:
    """The page of one clip: the answer, the sound, and how the one came from the other.

    Args:
        explanation: of the clip.
        name: what the clip is called.
        model: what the model is called.
    """
    return _clip_page(explanation, explanation_figures(explanation), name=name, model=model)


def _clip_page(
    explanation: ClipExplanation, figures: Mapping[str, Draw], *, name: str, model: str
) -> str:
    config = explanation.config
    ranked = sorted(enumerate(explanation.probabilities.tolist()), key=lambda pair: -pair[1])
    played = explanation.waveform[: explanation.n_samples][:MAX_AUDIO_SAMPLES]
    return _render(
        "explain.html",
        explanation=explanation,
        config=config,
        name=name,
        model=model,
        shares=[(config.classes[i], p, class_colour(i)) for i, p in ranked[:MAX_CLASSES]],
        colour=class_colour(config.classes.index(explanation.label)),
        seconds=explanation.n_samples / config.sample_rate,
        played_seconds=len(played) / config.sample_rate,
        audio=_audio_uri(played, sample_rate=config.sample_rate),
        pictures=_pictures(figures, _clip_words(explanation)),
    )


def write_explanation(
    folder: str | Path, explanation: ClipExplanation, *, name: str, model: str = ""
) -> Path:
    """Write the figures of a clip as PNG and SVG, and the page that shows them.

    Args:
        folder: where; it must exist.
        explanation: of the clip.
        name: what the clip is called.
        model: what the model is called.

    Returns:
        The page's path.
    """
    figures = {key: cache(draw) for key, draw in explanation_figures(explanation).items()}
    for key, draw in figures.items():
        save_figure(draw(WIDE), Path(folder) / key)
    page = Path(folder) / PAGE_FILE
    write_text(page, _clip_page(explanation, figures, name=name, model=model))
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
            if explanation.config.stride == 2
            else "One segment from top to bottom, coarser with every layer; each line is a filter,"
            " in stronger colour where it responds more. The last row is what each moment adds.",
        ),
        "contributions": (
            "How the answer adds up",
            f"How much each filter of the last layer heard on average, times its weight, one step"
            f" after the other: steps to the right speak for {towards}, to the left {left}."
            " They end at the logit, and the logit is the probability in another form.",
        ),
        "filters": (
            "The first layer's filters",
            "Dots are the numbers each filter multiplies neighbouring samples by"
            + (" (hollow: before normalisation)" if raw else "")
            + "; the curve shows which pitches it lets through. Grey curves are the other filters.",
        ),
    }


def render_report(
    metrics: Mapping[str, Any],
    *,
    title: str,
    history: Sequence[Mapping[str, Any]] = (),
    curves: Mapping[str, Rates] | None = None,
    examples: Mapping[str, Sequence[tuple[str, Waveform]]] | None = None,
    sample_rate: int = 16_000,
) -> str:
    """The page of a training run or a cross-validation: how good it is, and how that is known.

    Args:
        metrics: what metrics.json holds.
        title: of the page.
        history: rows of history.jsonl.
        curves: for each class its false and true positive rates over clips.
        examples: for each class some recordings, as (name, [T]).
        sample_rate: of the examples, in Hz.
    """
    figures, words = _run_figures(metrics), dict(_RUN_WORDS)
    if history:
        best = metrics.get("best_epoch")
        figures["training"] = lambda width: plots.plot_history(
            history, best_epoch=best, width=width
        )
        figures["rate"] = lambda width: plots.plot_learning_rate(history, width=width)
    if curves:
        chosen, areas = _first(curves), _areas(metrics, curves)
        classes = metrics.get("classes", ())
        figures["roc"] = lambda width: plots.plot_roc(
            chosen, areas=areas, classes=classes, width=width
        )
    if examples:
        shown = _first(examples)
        figures["examples"] = lambda width: plots.plot_examples(
            shown, sample_rate=sample_rate, width=width
        )
    ordered = {name: figures[name] for name in words if name in figures}
    return _render("report.html", metrics=metrics, title=title, pictures=_pictures(ordered, words))


_RUN_WORDS = {
    "recall": (
        "What it finds of each class",
        "The share of each class's clips that were recognised. Bars of very different length mean"
        " that the network favours a class.",
    ),
    "confusion": (
        "What it takes for what",
        "Each row is what a clip really was, each column what it was taken for. Everything off the"
        " diagonal is a mistake.",
    ),
    "roc": (
        "Finding against false alarms",
        "Ask for less certainty and more is found, but more is wrongly reported too. The closer a"
        " curve comes to the upper left corner, the better; the number is the area under it.",
    ),
    "training": (
        "How it learned",
        "Each epoch the network is tried on recordings it does not learn from. The dot marks the"
        " epoch that was kept. The dashed line counts recordings that were mixed and disturbed, so"
        " it may be the worse one; a solid loss that rises while the dashed one falls means"
        " learning by heart.",
    ),
    "rate": (
        "How boldly it learned",
        "The size of the steps at the end of each epoch: large ones to get somewhere, small ones"
        " to settle.",
    ),
    "examples": (
        "What the recordings look like",
        "Recordings of each class at full scale: the height is the loudness, 1 is the loudest a"
        " file can hold.",
    ),
}


def _run_figures(metrics: Mapping[str, Any]) -> dict[str, Draw]:
    """The figures that only need the numbers of metrics.json."""
    clips = metrics.get("clips", {})
    if not clips.get("n") or "recall" not in clips:
        return {}
    classes, matrix = list(clips["recall"]), clips["confusion"]
    counts = {label: sum(row) for label, row in zip(classes, matrix, strict=True)}
    return {
        "recall": lambda width: plots.plot_recall(clips["recall"], counts=counts, width=width),
        "confusion": lambda width: plots.plot_confusion(matrix, classes, width=width),
    }


def _areas(metrics: Mapping[str, Any], curves: Mapping[str, Rates]) -> dict[str, float]:
    """The one known area goes with the one curve there is."""
    area = metrics.get("clips", {}).get("roc_area")
    return dict.fromkeys(curves, area) if area is not None and len(curves) == 1 else {}


def _first(items: Mapping[str, Any]) -> dict[str, Any]:
    return dict(islice(items.items(), MAX_CLASSES))


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


def _audio_uri(waveform: Waveform, *, sample_rate: int) -> str:
    """A waveform as 16-bit WAV in a data URI: [T] -> str."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode()


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("stapes"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    page = environment.get_template(template).render(version=__version__, **values)
    return page.encode("utf-8", "replace").decode()  # names may hold what UTF-8 cannot


def _percent(share: float | None, digits: int = 1) -> str:
    """A share for people; one that was not measured says so."""
    if share is None or not math.isfinite(share):
        return "not measured"
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"
