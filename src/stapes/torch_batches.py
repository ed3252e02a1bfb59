"""Batches by PyTorch: on a GPU, and on the processor where the kernels are not built.

Both functions take NumPy's arrays, too, and write to their memory.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stapes.native_batches import Variations
from stapes.threads import torch_obeying


@torch_obeying()
def draw(sound: Any, firsts: NDArray[np.float64], rates: NDArray[np.float64], *, out: Any) -> None:
    """out[b, i] = the sound at ``firsts[b] + rates[b] * i``, linearly between samples.

    Args:
        sound: [N].
        firsts: places of the first samples [B].
        rates: above 0 [B].
        out: [B, T].
    """
    sound, out = torch.as_tensor(sound), torch.as_tensor(out)
    whole = np.floor(firsts)
    positions = torch.arange(out.shape[1], dtype=out.dtype, device=out.device)
    positions = positions * _column(rates.astype(np.float32), out)
    positions += _column((firsts - whole).astype(np.float32), out)
    left = positions.int() + _column(whole.astype(np.int64), out)
    torch.lerp(sound[left], sound[left + 1], positions.frac_(), out=out)


@torch_obeying()
def vary(segments: Any, by: Variations, noises: Any, *, least_rms: float) -> Tensor:
    """Normalise, mix, filter, add noise, normalise to a level: [B, T] -> [B, T].

    Args:
        segments: [B, T].
        by: what is done to each.
        noises: [M].
        least_rms: what is more silent is amplified as if it had this.
    """
    segments, noises = torch.as_tensor(segments), torch.as_tensor(noises)
    length, n_taps = segments.shape[1], by.taps.shape[1]
    alike = _normalised(segments, least_rms)
    mixed = alike[torch.from_numpy(by.partners)].mul_(_column(by.other, segments))
    mixed.addcmul_(alike, _column(by.own, segments))
    taps = torch.from_numpy(by.taps).to(segments.device)[:, None]
    varied = F.conv1d(mixed[None], taps, padding=n_taps // 2, groups=len(mixed))[0]
    pieces = noises.unfold(0, length, 1)
    added = pieces.index_select(0, torch.from_numpy(by.noise_starts).to(segments.device))
    varied.addcmul_(added, _column(by.noise_levels, segments))
    return _normalised(varied, least_rms).mul_(_column(by.rms, segments))


def _normalised(segments: Tensor, least_rms: float) -> Tensor:
    """Brought to mean 0 and RMS 1, silence as far as the quietest sound: [B, T] -> [B, T]."""
    variance, mean = torch.var_mean(segments, dim=1, correction=0, keepdim=True)
    return (segments - mean).div_(variance.sqrt_().clamp_(min=least_rms))


def _column(values: NDArray[Any], like: Tensor) -> Tensor:
    """[B] -> [B, 1] on the device of another tensor."""
    return torch.from_numpy(values[:, None]).to(like.device)
