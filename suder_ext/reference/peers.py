"""Functions other libraries have, under their names, in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suder_ext.reference.logprobs import widen, without_ignored, wrong_targets


def selective_log_softmax(
    logits: Tensor, index: Tensor, temperature: float = 1.0, row_mask: Tensor | None = None
) -> Tensor:
    """See `suder_ext.selective_log_softmax`."""
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    (wide,) = widen(logits)
    assert wide is not None
    single = index.dim() == logits.dim() - 1
    index = index.long()[..., None] if single else index.long()
    masked = torch.zeros_like(index, dtype=torch.bool)
    if row_mask is not None:
        masked = (row_mask == 0).view(index.shape)
    wrong = wrong_targets(index, logits.shape[-1], masked, "where row_mask is not 0", "index")
    log_p = F.log_softmax(without_ignored(wide, masked.all(-1)) / temperature, dim=-1)
    picked = log_p.gather(-1, index.masked_fill(masked | wrong, 0))
    picked = picked.masked_fill(wrong, torch.nan).masked_fill(masked, 0.0)
    return picked[..., 0] if single else picked
