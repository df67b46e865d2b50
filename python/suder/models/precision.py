"""Which dtype a model computes in, and the one place that opens torch's autocast for it.

autocast keeps the casts of weights until its outermost region ends, whatever becomes of the weights
meanwhile. So a region spans one forward, or the steps of one decoding, during which no weight
changes; never an optimiser's step, an exchange of weights or the writing of a file.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def computing(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Products in `dtype` inside; None leaves things as they are, a caller's autocast included."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def exactly(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, tensors are computed with in the dtype they have."""
    return torch.autocast(device.type, enabled=False)


def product_dtype(weight: Tensor) -> torch.dtype:
    """What a linear layer with this weight multiplies in, here and now."""
    device = weight.device.type
    # autocast leaves float64 alone, and knows no meta tensors.
    if weight.dtype == torch.float64 or device == "meta" or not torch.is_autocast_enabled(device):
        return weight.dtype
    return torch.get_autocast_dtype(device)


def guided(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """uncond + scale * (cond - uncond), in float32 at least and rounded once to their dtype."""
    wide = torch.promote_types(cond.dtype, torch.float32)
    base = uncond.to(wide)
    return (base + scale * (cond.to(wide) - base)).to(cond.dtype)
