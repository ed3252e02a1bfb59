"""Ctrl-C and requests to end, noted between two steps instead of striking anywhere."""

import signal
import threading
from types import FrameType
from typing import Any, Self


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
