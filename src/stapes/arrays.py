"""Arrays in training: NumPy's on the processor, where each call costs less, PyTorch's on a GPU."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def library(array: Any) -> Any:
    """NumPy or PyTorch: functions of the same names for either's arrays."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def put(array: NDArray[Any], device: str) -> Any:
    """On the processor the array itself, on a GPU a copy of it."""
    if device == "cpu":
        return array
    import torch

    return torch.from_numpy(array).to(device)


def fetch(array: Any) -> NDArray[Any]:
    """The array itself, or a copy of it from the GPU."""
    found: NDArray[Any] = array if isinstance(array, np.ndarray) else array.cpu().numpy()
    return found
