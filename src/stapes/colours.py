"""The colours of every figure and page, for light and dark grounds."""

INK, MUTED, LINE, PAPER = "#1f2733", "#5d6b7c", "#d5dbe2", "#ffffff"
"""Text, secondary text, grid lines and background; a page puts its own in their place."""

PAGE_MUTED, PAGE_LINE, PAGE_ACCENT = "var(--muted)", "var(--line)", "var(--accent)"
"""Names under which a page knows its own colours."""

ACCENT = "#7d62c9"
"""What belongs to no class: activations, filters, training."""

CLASS_COLOURS = (
    "#2f7ec4",
    "#cf6f0b",
    "#238a6b",
    "#bf5297",
    "#8a7a12",
    "#d1495b",
    "#2591a8",
    "#8a62d0",
    "#6b8a2a",
    "#8f6a52",
)
"""All with a contrast of 3:1 and more on light and dark; the first two apart for every eye."""


def class_colour(index: int) -> str:
    """The colour of a class, the same in every figure; from the eleventh on they come again."""
    return CLASS_COLOURS[index % len(CLASS_COLOURS)]
