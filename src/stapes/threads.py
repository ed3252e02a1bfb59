"""How many threads work at a time: as many as there are processors, unless asked otherwise."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from stapes.config import in_range

MAX_THREADS = 256
"""Threads that one call of the kernels may use."""

_ASKED: ContextVar[int | None] = ContextVar("threads", default=None)


def thread_count() -> int:
    """Threads that were asked for, or the processors that this process may use."""
    if (asked := _ASKED.get()) is not None:
        return asked
    linux = hasattr(os, "sched_getaffinity")
    n_processors = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    return min(n_processors, MAX_THREADS)


@contextmanager
def using_threads(n: int | None) -> Iterator[None]:
    """Within, work with this many; trainings are exact for a given number. None changes nothing.

    Raises:
        UsageError: less than one, or more than there can be.
    """
    if n is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    before = _ASKED.set(in_range("threads", n, 1, MAX_THREADS))
    try:
        with threadpool_limits(n):  # NumPy's, whose products round differently on more
            yield
    finally:
        _ASKED.reset(before)


@contextmanager
def torch_obeying() -> Iterator[None]:
    """Within, PyTorch works with as many as were asked for."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(thread_count())
    try:
        yield
    finally:
        torch.set_num_threads(before)
