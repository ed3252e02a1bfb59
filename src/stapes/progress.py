"""How long work tells how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int, str], None]
"""Told what is being done, how much of it is done, of how much, and how it goes."""


def silent(_task: str, _done: int, _total: int, _note: str) -> None:
    """Progress for nobody."""
