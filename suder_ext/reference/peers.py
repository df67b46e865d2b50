"""Functions other libraries have, under their names, in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suder_ext.reference.logprobs import widen


def selective_log_softmax(
    logits: Tensor, index: Tensor, temperature: float = 1.0, row_mask: Tensor | None = None
) -> Tensor:
    """See `suder_ext.selective_log_softmax`."""
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    (wide,) = widen(logits)
    assert wide is not None
    log_p = F.log_softmax(wide / temperature, dim=-1)
    single = index.dim() == logits.dim() - 1
    picked = log_p.gather(-1, index[..., None] if single else index)
    picked = picked[..., 0] if single else picked
    return picked if row_mask is None else picked.masked_fill(row_mask == 0, 0.0)


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
    with torch.autocast(hidden.device.type, enabled=False):  # it would round the logits
        logits = F.linear(hidden, weight, bias)
    return F.cross_entropy(
        logits,
        target.to(torch.int64),
        reduction=reduction,
        ignore_index=-100 if ignore_index is None else ignore_index,
        label_smoothing=label_smoothing,
    )
