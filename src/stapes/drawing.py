"""The look of every figure: colours, sizes, labels; and how a figure becomes a file or a page.

Figures never touch pyplot, so nothing global changes and nothing needs a display.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stapes.colours import INK, LINE, MUTED, PAPER
from stapes.files import replacing

WIDE, NARROW = 7.6, 3.9
"""Widths in inches: a page on a desk or on paper, and a phone held upright."""

STYLE: dict[str, Any] = {
    "figure.facecolor": PAPER,
    "figure.dpi": 144,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
    "figure.constrained_layout.wspace": 0.05,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$5"
    "axes.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "hatch.color": LINE,
    "svg.hashsalt": "stapes",
}

_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_Parameters = ParamSpec("_Parameters")


def styled(draw: Callable[_Parameters, Figure]) -> Callable[_Parameters, Figure]:
    """Give a drawing function the common look, and lay its figure out once for all writers."""

    @wraps(draw)
    def wrapper(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> Figure:
        with _look():
            figure = draw(*args, **kwargs)
            if engine := figure.get_layout_engine():
                engine.execute(figure)
            figure.set_layout_engine("none")
            return figure

    return wrapper


@contextmanager
def _look(**settings: Any) -> Iterator[None]:
    look: Any = STYLE | settings
    with mpl.rc_context(look), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # boxes are shown
        yield


def new_figure(*, width: float, height: float) -> Figure:
    """An empty figure in inches that keeps its labels apart."""
    return Figure(figsize=(width, height), layout="constrained")


def is_narrow(width: float) -> bool:
    """Whether a figure of this width in inches is for a phone."""
    return width < (WIDE + NARROW) / 2


def printable(name: str, *, limit: int = 28) -> str:
    """A name that fits and can be drawn: one line, no broken characters, cut in the middle.

    >>> printable("Pipistrellus pipistrellus (social call)", limit=20)
    'Pipistrell…ial call)'
    """
    name = name.encode("utf-8", "replace").decode()
    name = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if len(name) <= limit:
        return name
    return name[: limit // 2] + "…" + name[len(name) + 1 - (limit - limit // 2) :]


def fading(colour: str) -> LinearSegmentedColormap:
    """Colours from nothing (the background shows) to ``colour``."""
    return LinearSegmentedColormap.from_list("fading", [(*to_rgb(colour), 0.0), to_rgb(colour)])


def tint(
    evidence: NDArray[np.float64], *, colours: Sequence[tuple[str, str]], limit: float
) -> NDArray[np.float64]:
    """Signed values as colours that fade towards 0: [R, M] -> [R, M, 4].

    Args:
        evidence: nan stays empty.
        colours: for each row, that of negative and that of positive values [R].
        limit: magnitude from which the colour is full.
    """
    pairs = np.array([[to_rgb(negative), to_rgb(positive)] for negative, positive in colours])
    filled = np.nan_to_num(evidence)
    colour = np.where((filled < 0)[..., None], pairs[:, :1], pairs[:, 1:])  # [R, M, 3]
    return np.concatenate([colour, np.minimum(np.abs(filled) / limit, 1)[..., None]], axis=2)


def hide_frame(axes: Axes) -> None:
    """No spines, no ticks on y: for pictures and strips."""
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, bottom=False)


def save_figure(figure: Figure, path: str | Path) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG, atomically and with the same bytes for the same figure.

    Args:
        figure: what to write.
        path: where, with or without one of the two endings; the folder must exist.

    Returns:
        Paths of the PNG and the SVG file.
    """
    path = Path(path)
    stem = path.name.removesuffix(".png").removesuffix(".svg")
    png, svg = path.with_name(f"{stem}.png"), path.with_name(f"{stem}.svg")
    with _look(), replacing(png) as file:
        figure.savefig(file, format="png", metadata={"Software": None})
    with _look(), replacing(svg) as file:
        figure.savefig(file, format="svg", metadata=_NO_METADATA)
    return png, svg


def as_svg(figure: Figure, *, name: str) -> str:
    """A figure as an element for a page, in the page's own font and colours.

    The page defines --ink, --muted, --line and --paper, so that light and dark both work.

    Args:
        figure: what to draw.
        name: unique on the page; begins every id of the figure.
    """
    buffer = io.StringIO()
    with _look(**{"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA, facecolor="none")
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    for colour, variable in zip((INK, MUTED, LINE, PAPER), _VARIABLES, strict=True):
        drawing = drawing.replace(colour, f"var(--{variable})")
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    drawing = re.sub(r' height="[^"]*pt"', "", drawing, count=1)
    size = f'style="max-width: {100 * figure.get_figwidth():.0f}px"'
    return re.sub(r'width="[^"]*pt"', size, drawing, count=1)


_VARIABLES = ("ink", "muted", "line", "paper")
