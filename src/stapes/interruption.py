"""Ctrl-C and requests to end, held back where they would do harm."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self


@contextmanager
def deferred() -> Iterator[None]:
    """While it lasts, SIGINT and SIGTERM wait, to be handled behind it.

    For libraries that call Python back from C: there exceptions are printed and lost, and the
    library goes on with half of what it asked for.
    """
    waiting: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # the only one that handles signals
        handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        handlers = {n: handler for n, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda *what: waiting.append(what))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in waiting:
            handlers[number](number, frame)


class Interruption:
    """While it lasts, the first SIGINT or SIGTERM is noted instead of striking anywhere.

    Only the main thread can handle signals; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        """Nothing noted yet."""
        self.number = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over the two signals."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        for taken, handler in self._previous.items():
            signal.signal(taken, handler)  # the second time ends at once
