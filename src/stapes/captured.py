"""A step on a GPU, captured once and then replayed as a whole."""

from collections.abc import Callable

import torch
from torch import Tensor

from stapes.batches import Batch

WARM_UP = 3
"""Steps before one is captured: libraries choose their kernels in the first ones."""


class Captured:
    """A function of batches that works in place: the same launches, without Python between them."""

    def __init__(self, step: Callable[[Batch], Tensor]) -> None:
        """Capture nothing yet.

        Args:
            step: the function; what it returns is overwritten by the next call.
        """
        self._step = step
        self._n_warm = 0
        self._aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._replayed: tuple[torch.cuda.CUDAGraph, Batch, Tensor] | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Take a step."""
        if self._n_warm < WARM_UP:
            self._n_warm += 1
            return self._step_aside(batch)
        if self._replayed is None:
            self._replayed = self._capture(batch)
        graph, given, told = self._replayed
        given.segments.copy_(batch.segments)
        given.targets.copy_(batch.targets)
        graph.replay()
        return told

    def _step_aside(self, batch: Batch) -> Tensor:
        """A step on a stream of its own, as capturing wants those before it."""
        here = torch.cuda.current_stream()
        self._aside.wait_stream(here)
        with torch.cuda.stream(self._aside):
            told = self._step(batch)
        here.wait_stream(self._aside)
        return told

    def _capture(self, batch: Batch) -> tuple[torch.cuda.CUDAGraph, Batch, Tensor]:
        """The graph of a step, which is not taken yet, the batch it reads and what it tells."""
        given = Batch(batch.segments.clone(), batch.targets.clone(), batch.clips)
        torch.cuda.empty_cache()  # what the steps aside kept
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            told = self._step(given)
        return graph, given, told
