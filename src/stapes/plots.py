"""Arrays -> figures of data sets. Computes nothing; the look is ``drawing``'s.

The figures of one clip are in ``clip_plots``; a page draws its charts itself.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stapes.colours import MUTED, class_colour
from stapes.drawing import WIDE, is_narrow, new_figure, printable, styled
from stapes.inspection import envelope
from stapes.segments import Waveform


@styled
def plot_examples(
    examples: Mapping[str, Sequence[tuple[str, Waveform]]],
    *,
    sample_rate: int,
    width: float = WIDE,
) -> Figure:
    """Waveforms of recordings, a row of small pictures for each class.

    Args:
        examples: for each class in order its recordings, as (name, [T] within -1 and 1).
        sample_rate: Hz.
        width: inches.
    """
    n_columns = min(2 if is_narrow(width) else 4, max(map(len, examples.values()), default=1))
    figure = new_figure(width=width, height=max(1, len(examples)) * 1.25 + 0.35)
    grid = figure.subplots(max(1, len(examples)), n_columns, squeeze=False, sharey=True)
    for row, (index, (label, recordings)) in zip(grid, enumerate(examples.items()), strict=False):
        for axes in row[len(recordings) :]:
            axes.set_visible(False)
        for axes, (name, waveform) in zip(row, recordings, strict=False):
            _draw_waveform(axes, waveform, sample_rate=sample_rate, colour=class_colour(index))
            axes.set_title(printable(name, limit=22), fontsize=7.5, weight="normal", color=MUTED)
        row[0].set_ylabel(printable(label, limit=14), color=class_colour(index), weight="bold")
    for axes in grid[-1]:
        axes.set_xlabel("seconds")
    return figure


def _draw_waveform(axes: Axes, waveform: Waveform, *, sample_rate: int, colour: str) -> None:
    """One recording at full scale; its axis ends where the recording ends."""
    low, high = envelope(waveform, n_columns=400)
    seconds = np.linspace(0, len(waveform) / sample_rate, len(low))
    axes.fill_between(seconds, low, high, color=colour, linewidth=0.5)
    axes.set(xlim=(0, seconds[-1]), ylim=(-1.05, 1.05), yticks=[-1, 0, 1])
    axes.xaxis.set_major_locator(MaxNLocator(4))
