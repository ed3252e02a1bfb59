"""Arrays -> figures of one clip's explanation. Computes nothing; the look is ``drawing``'s."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from stapes.colours import ACCENT, INK, LINE, MUTED, PAPER, class_colour
from stapes.drawing import WIDE, fading, hide_frame, is_narrow, new_figure, printable, styled, tint
from stapes.inspection import ClipExplanation, FirstLayer, envelope, strongest_columns

Doubles = NDArray[np.float64]

FULL_EVIDENCE = 4.0
"""Evidence from which colours are full: a probability of 98 % for one side."""

MAX_ROWS = 24
"""Filters shown one by one; of larger networks the strongest."""

N_COLUMNS = 600
"""Points across a figure: finer would not be seen."""


def sides(classes: Sequence[str], row: int) -> tuple[str, str]:
    """What negative and what positive evidence of a row of the head speak for."""
    if len(classes) == 2:
        return classes[0], classes[1]
    return f"not {classes[row]}", classes[row]


def side_colours(classes: Sequence[str], row: int) -> tuple[str, str]:
    """Colours of negative and of positive evidence of a row of the head."""
    if len(classes) == 2:
        return class_colour(0), class_colour(1)
    return MUTED, class_colour(row)


@styled
def plot_strip(explanation: ClipExplanation, *, width: float = WIDE) -> Figure:
    """When the network heard what: the waveform, and below it the evidence of each moment."""
    n_rows = len(explanation.head_bias)
    figure = new_figure(width=width, height=3.1 if n_rows == 1 else 2.2 + 0.22 * min(n_rows, 10))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.15, 1])
    _draw_clip(upper, explanation)
    if n_rows == 1:
        _draw_evidence(lower, explanation)
    else:
        _draw_evidence_rows(lower, explanation)
    lower.set_xlabel("seconds")
    upper.set_xlim(0, len(explanation.waveform) / explanation.config.sample_rate)
    return figure


def _draw_clip(axes: Axes, explanation: ClipExplanation) -> None:
    """The waveform on a ground in the colours of its moments, the segment shown in brackets."""
    config, line, row = explanation.config, explanation.timeline, explanation.row
    low, high = envelope(explanation.waveform, n_columns=N_COLUMNS)
    peak = max(float(np.abs(explanation.waveform).max()), 1e-6) * 1.25
    colours = [side_colours(config.classes, row)]
    image = tint(line.evidence[row : row + 1], colours=colours, limit=FULL_EVIDENCE)
    image[..., 3] *= 0.45
    axes.imshow(image, extent=(*_reach(explanation), -peak, peak), aspect="auto")
    seconds = np.linspace(0, len(explanation.waveform) / config.sample_rate, len(low))
    axes.fill_between(seconds, low, high, color=INK, linewidth=0.4)
    first = explanation.segment.start_seconds
    last = first + config.segment_seconds
    axes.plot([first, first, last, last], np.array([0.84, 0.94, 0.94, 0.84]) * peak, color=ACCENT)
    note = "followed below"
    end = first > len(explanation.waveform) / config.sample_rate / 2
    axes.annotate(note, (last if end else first, 1), (0, 2), xycoords=("data", "axes fraction"),
                  textcoords="offset points", ha="right" if end else "left", va="bottom",
                  color=ACCENT, fontsize=8)  # fmt: skip
    axes.set(ylim=(-peak, peak), ylabel="amplitude", autoscalex_on=False)
    axes.yaxis.set_major_locator(MaxNLocator(3, symmetric=True))


def _reach(explanation: ClipExplanation) -> tuple[float, float]:
    """Where the first moment begins and the last one ends, in seconds."""
    line = explanation.timeline
    half = line.step_seconds / 2
    return line.times_seconds[0] - half, line.times_seconds[-1] + half


def _draw_evidence(axes: Axes, explanation: ClipExplanation) -> None:
    """One logit: up for the second class, down for the first."""
    line, classes = explanation.timeline, explanation.config.classes
    evidence = np.nan_to_num(line.evidence[0])
    highest = max(float(np.abs(evidence).max()), 1.0) * 1.15
    edges = np.linspace(*_reach(explanation), len(evidence) + 1)
    axes.stairs(np.minimum(evidence, 0), edges, fill=True, color=class_colour(0))
    axes.stairs(np.maximum(evidence, 0), edges, fill=True, color=class_colour(1))
    _hatch_silence(axes, explanation)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.set(ylim=(-highest, highest), ylabel="evidence (logit)")
    down, up = (printable(label, limit=14) for label in classes)
    _caption(axes, f"▲ {up}", f"▼ {down}", colours=(class_colour(1), class_colour(0)))


def _draw_evidence_rows(axes: Axes, explanation: ClipExplanation) -> None:
    """A row a class, the most probable ten in the order of the classes."""
    classes, line = explanation.config.classes, explanation.timeline
    shown = np.sort(np.argsort(-explanation.probabilities, kind="stable")[:10])
    colours = [(LINE, class_colour(i)) for i in shown]
    image = tint(line.evidence[shown], colours=colours, limit=FULL_EVIDENCE)
    extent = (*_reach(explanation), len(shown) - 0.5, -0.5)
    axes.imshow(image, extent=extent, aspect="auto", interpolation="none")
    _hatch_silence(axes, explanation)
    axes.set_yticks(range(len(shown)), [printable(classes[i], limit=18) for i in shown])
    for tick, i in zip(axes.get_yticklabels(), shown, strict=True):
        tick.set(color=class_colour(i), weight="bold" if i == explanation.row else "normal")
    axes.tick_params(left=False)


def _hatch_silence(axes: Axes, explanation: ClipExplanation) -> None:
    """Hatch the moments that no voting segment covers."""
    line = explanation.timeline
    silent = np.concatenate([[False], line.shares == 0, [False]])
    edges = np.flatnonzero(silent[1:] != silent[:-1]).reshape(-1, 2) * line.step_seconds
    for first, last in edges + _reach(explanation)[0]:
        axes.axvspan(first, last, facecolor="none", edgecolor=LINE, hatch="////", linewidth=0)


@styled
def plot_layers(explanation: ClipExplanation, *, width: float = WIDE) -> Figure:
    """One segment on its way down: the waveform, every layer's activations, the evidence."""
    segment, config = explanation.segment, explanation.config
    n_layers = len(segment.activations)
    ratios = [0.9, *[0.62] * n_layers, 1.0]
    figure = new_figure(width=width, height=sum(ratios) + 0.4)
    grid = figure.subplots(n_layers + 2, 1, sharex=True, height_ratios=ratios)
    low, high = envelope(segment.input, n_columns=N_COLUMNS)
    seconds = segment.times_seconds[0]
    grid[0].fill_between(
        np.linspace(seconds[0], seconds[-1], len(low)), low, high, color=INK, linewidth=0.4
    )
    hide_frame(grid[0])
    grid[0].set_yticks([])
    _caption(grid[0], "input", f"{len(seconds):,} samples, {_spacing_ms(seconds)} ms apart")
    for axes, number in zip(grid[1:-1], range(1, n_layers + 1), strict=True):
        _draw_layer(axes, explanation, number)
    _draw_frames(grid[-1], explanation, limit=10 if is_narrow(width) else 24)
    grid[-1].set(xlabel="seconds", xlim=(seconds[0], seconds[0] + config.segment_seconds))
    return figure


def _draw_layer(axes: Axes, explanation: ClipExplanation, number: int) -> None:
    """Activations of one layer, a line a filter, the strongest in full colour."""
    seconds = explanation.segment.times_seconds[number]
    activations = explanation.segment.activations[number - 1]  # [T, C]
    columns, group = strongest_columns(activations, n_columns=N_COLUMNS)
    step = float(seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1) or 1.0
    left = float(seconds[0]) - step / 2
    n_filters = columns.shape[1]
    axes.imshow(
        columns.T,
        cmap=fading(ACCENT),
        norm=PowerNorm(0.5, vmin=0, vmax=float(columns.max()) or 1.0),  # quiet ones show too
        extent=(left, left + len(columns) * group * step, n_filters + 0.5, 0.5),
        aspect="auto",
        interpolation="none",
    )
    hide_frame(axes)
    axes.set_facecolor((LINE, 0.3))
    axes.set_yticks([1, n_filters] if n_filters > 1 else [1])
    axes.tick_params(axis="y", labelsize=6.5, pad=1)
    frames = f"{len(seconds):,} frames × {n_filters} filters, {_spacing_ms(seconds)} ms apart"
    _caption(axes, f"layer {number}", frames)


def _draw_frames(axes: Axes, explanation: ClipExplanation, *, limit: int) -> None:
    """What every last frame adds to the evidence."""
    segment, row = explanation.segment, explanation.row
    classes = explanation.config.classes
    seconds, added = segment.times_seconds[-1], segment.frame_contributions[row]
    step = float(seconds[1] - seconds[0]) if len(seconds) > 1 else 1.0
    colours = side_colours(classes, row)
    axes.bar(seconds, added, width=0.9 * step, color=[colours[int(v > 0)] for v in added])
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    against, towards = (printable(side, limit=limit) for side in sides(classes, row))
    _caption(axes, "what each frame adds", f"▲ {towards}   ▼ {against}")


def _spacing_ms(seconds: Doubles) -> str:
    step = (seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1)
    return f"{1000 * step:.4g}"


def _caption(axes: Axes, name: str, about: str, *, colours: tuple[str, str] = (INK, MUTED)) -> None:
    """A line above the axes: the name, then what it is."""
    style: dict[str, Any] = {"va": "bottom", "fontsize": 8, "xycoords": "axes fraction"}
    title = axes.annotate(name, (0, 1.02), weight="bold", color=colours[0], **style)
    style |= {"xycoords": title, "xytext": (8, 0), "textcoords": "offset points"}
    weight = "bold" if colours[1] != MUTED else "normal"
    axes.annotate(about, (1, 0), color=colours[1], weight=weight, **style)


@styled
def plot_contributions(explanation: ClipExplanation, *, width: float = WIDE) -> Figure:
    """Pooled values times weights, added up from the bias to the answer."""
    segment, row = explanation.segment, explanation.row
    contributions = segment.filter_contributions[row]
    shown = np.sort(np.argsort(-np.abs(contributions), kind="stable")[:MAX_ROWS])
    rest = float(np.delete(contributions, shown).sum())
    names = [f"filter {i + 1}" for i in shown]
    steps = [float(explanation.head_bias[row]), *contributions[shown].tolist()]
    if len(shown) < len(contributions):
        names, steps = [*names, "all others"], [*steps, rest]
    figure = new_figure(width=width, height=1.1 + 0.25 * (len(steps) + 1))
    heard, weights, added = figure.subplots(1, 3, sharey=True, width_ratios=[1, 1, 1.9])
    rows = np.arange(1, len(shown) + 1)
    heard.barh(rows, segment.pooled[shown], color=ACCENT, height=0.66)
    colours = side_colours(explanation.config.classes, row)
    values = explanation.head_weight[row, shown]
    weights.barh(rows, values, color=[colours[int(v > 0)] for v in values], height=0.66)
    _draw_waterfall(added, steps, colours=colours)
    heard.set_yticks(range(len(steps) + 1), ["bias", *names, "logit"])
    heard.set_ylim(len(steps) + 0.6, -0.6)
    heard.set_title("heard")
    weights.set_title("× weight")
    added.set_title("= added up")
    heard.set_xlabel("activation", fontsize=7.5)
    weights.set_xlabel("head", fontsize=7.5)
    limit = 10 if is_narrow(width) else 20
    against, towards = (printable(s, limit=limit) for s in sides(explanation.config.classes, row))
    added.set_xlabel(f"← {against}   |   {towards} →", fontsize=7.5)
    for axes in (heard, weights, added):
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.tick_params(axis="y", left=False, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(2 if is_narrow(width) else 4))
    figure.supxlabel(_sum_in_words(explanation), color=INK, weight="bold", fontsize=9)
    return figure


def _sum_in_words(explanation: ClipExplanation) -> str:
    """What the sum means: the segment's logit as the label's probability."""
    segment, classes = explanation.segment, explanation.config.classes
    share = float(segment.probabilities[classes.index(explanation.label)])
    function = "sigmoid" if len(classes) == 2 else "softmax"
    label = printable(explanation.label, limit=18)
    logit = f"{segment.logits[explanation.row]:+.2f}".replace("-", "−")
    return f"logit {logit}  →  {function}  →  {label} {100 * share:.1f} %"


def _draw_waterfall(axes: Axes, steps: Sequence[float], *, colours: tuple[str, str]) -> None:
    """Every step begins where the last one ended; the last bar is the sum of all."""
    axes.use_sticky_edges = False  # bars must not cancel the margins that their numbers need
    ends = np.cumsum(steps)
    begins = ends - steps
    for y, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        axes.barh(y, step, left=begin, color=colours[int(step > 0)], height=0.66)
        axes.plot([end, end], [y, y + 1], color=MUTED, linewidth=0.8, zorder=0)
        _note(axes, f"{step:+.2f}", (max(begin, end), y), fontsize=7.5, color=MUTED)
    total = float(ends[-1])
    axes.barh(len(steps), total, color=colours[int(total > 0)], height=0.8)
    _note(axes, f"{total:+.2f}", (max(total, 0), len(steps)), weight="bold")
    axes.margins(x=0.2)


def _note(axes: Axes, text: str, place: tuple[float, float], **style: Any) -> None:
    """Text right of a place, on the page's own ground so that lines do not cross it."""
    ground = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}
    text = text.replace("-", "−")
    offset: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, place, bbox=ground, **offset, **style)


@styled
def plot_filters(first_layer: FirstLayer, *, width: float = WIDE) -> Figure:
    """The first layer's filters, and below each how loud it lets every frequency through."""
    n_filters = min(len(first_layer.kernels), MAX_ROWS)
    n_columns = min(n_filters, 2 if is_narrow(width) else 5)
    n_lines = -(-n_filters // n_columns)
    figure = new_figure(width=width, height=0.5 + 1.75 * n_lines)
    grid = figure.subplots(
        2 * n_lines, n_columns, squeeze=False, sharey="row", height_ratios=[0.8, 1] * n_lines
    )
    for index in range(n_lines * n_columns):
        line, column = divmod(index, n_columns)
        taps, response = grid[2 * line, column], grid[2 * line + 1, column]
        if index >= n_filters:
            taps.set_visible(False)
            response.set_visible(False)
            continue
        _draw_taps(taps, first_layer, index)
        _draw_response(response, first_layer, index)
        lowest = index + n_columns >= n_filters
        taps.tick_params(bottom=lowest, labelbottom=lowest)
        response.tick_params(bottom=lowest, labelbottom=lowest)
        taps.set_xlabel("ms" if lowest else "")
        response.set_xlabel("kHz" if lowest else "")
    for axes in grid[::2, 0]:
        axes.set_ylabel("weight")
    for axes in grid[1::2, 0]:
        axes.set_ylabel("gain (dB)")
    return figure


def _draw_taps(axes: Axes, first_layer: FirstLayer, index: int) -> None:
    """Weights as used, filled; as learned, before normalisation, hollow."""
    kernels, raw, taps = first_layer.kernels, first_layer.raw_kernels, first_layer.tap_ms
    highest = max(float(np.abs(k).max()) for k in (kernels, raw) if k is not None) * 1.3 or 1.0
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.vlines(taps, 0, kernels[index], color=ACCENT, linewidth=1.8)
    axes.plot(taps, kernels[index], "o", color=ACCENT, markersize=4.5)
    if raw is not None:
        axes.plot(taps, raw[index], "o", color=MUTED, markersize=4.5, fillstyle="none")
    reach = float(taps[-1]) * 1.5 or 1.0
    axes.set(ylim=(-highest, highest), xlim=(-reach, reach))
    ends = [taps[0], 0.0, taps[-1]] if len(taps) > 1 else [0.0]
    axes.set_xticks(ends, [f"{tap:.2g}".replace("-", "−") for tap in ends])
    axes.set_title(f"filter {index + 1}")


def _draw_response(axes: Axes, first_layer: FirstLayer, index: int) -> None:
    """This filter's gain over the gains of all others, which are one broken line."""
    kilohertz, responses = first_layer.frequencies_hz / 1000, first_layer.responses_db
    others = np.pad(responses[:, ::4], ((0, 0), (0, 1)), constant_values=np.nan)  # [C, F / 4 + 1]
    along = np.tile(np.append(kilohertz[::4], np.nan), len(responses))
    top = float(responses.max()) + 3
    axes.plot(along, others.ravel(), color=LINE, linewidth=0.6)
    axes.plot(kilohertz, responses[index], color=ACCENT, linewidth=1.8)
    axes.set(xlim=(0, kilohertz[-1]), ylim=(top - 45, top))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
