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


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """See `suder_ext.linear_cross_entropy`."""
    hidden, weight, bias = widen(input, linear_weight, linear_bias)
    assert hidden is not None
    assert weight is not None
    target = target.long()
    ignored = target == (-100 if ignore_index is None else ignore_index)
    wrong = wrong_targets(target, weight.shape[0], ignored)
    hidden = without_ignored(hidden, ignored)
    with torch.autocast(hidden.device.type, enabled=False):  # it would round the logits
        logits = F.linear(hidden, weight, bias)
    log_p = F.log_softmax(logits, dim=-1)
    picked = log_p.gather(-1, target.masked_fill(ignored | wrong, 0)[..., None])[..., 0]
    loss = -picked.masked_fill(wrong, torch.nan)
    if label_smoothing == 1:  # and not 0 times a loss that may be infinite
        loss = -log_p.mean(-1).masked_fill(wrong, torch.nan)
    elif label_smoothing > 0:
        loss = (1 - label_smoothing) * loss - label_smoothing * log_p.mean(-1)
    loss = loss.masked_fill(ignored, 0.0)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / (~ignored).sum()
