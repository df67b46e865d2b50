"""The same values in other memory layouts."""

from __future__ import annotations

import torch
from torch import Tensor


def strided(value: Tensor, layout: str) -> Tensor:
    """The same values in another layout."""
    if layout == "columns":  # no row is contiguous
        return value.t().contiguous().t() if value.dim() == 2 else value
    if layout == "padded":  # rows are contiguous but not next to each other
        padded = torch.full((*value.shape[:-1], value.shape[-1] + 3), torch.nan, dtype=value.dtype)
        padded[..., : value.shape[-1]] = value
        return padded[..., : value.shape[-1]]
    if layout == "every other":
        return value.repeat_interleave(2, dim=-1)[..., ::2]
    if layout == "unaligned":  # no row starts at a multiple of the vector width
        room = torch.empty(value.numel() + 1, dtype=value.dtype)
        room[1:] = value.reshape(-1)
        return room[1:].view(value.shape)
    return value


LAYOUTS = ["contiguous", "columns", "padded", "every other", "unaligned"]
