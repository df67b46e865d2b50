"""KL(policy || reference) over the vocabulary in plain PyTorch, every logit held in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suder_ext.reference.logprobs import final_logits, widen, without_ignored
from suder_ext.reference.sequences import sequence_reduce
from suder_ext.types import SequenceReduction


def of_logits(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """Of the last dimension: 0 for an entry whose p is 0, infinite where only q is 0."""
    log_p, log_q = F.log_softmax(logits, dim=-1), F.log_softmax(ref_logits, dim=-1)
    absent = log_p == -torch.inf
    impossible = ~absent & (log_q == -torch.inf)
    # Filled before the product: neither 0 * inf nor a gradient of it.
    left_out = absent | impossible
    difference = log_p.masked_fill(left_out, 0.0) - log_q.masked_fill(left_out, 0.0)
    kl = (log_p.masked_fill(absent, 0.0).exp() * difference).sum(-1)
    kl = kl - kl.detach().clamp(max=0.0)  # what rounding gives; the gradient stays
    # Not filled in: a gradient of 0 would be wrong, and so is any other number.
    possible = (~impossible.any(-1)).to(kl.dtype)
    return torch.where(possible == 0, (1 + kl) / possible, kl)


def linear_kl(
    hidden: Tensor,
    weight: Tensor,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    bias: Tensor | None = None,
    ref_bias: Tensor | None = None,
    target: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    *,
    reduction: SequenceReduction = "mean",
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """See `suder_ext.linear_kl`."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}; it must be 'mean' or 'sum'")
    if target is None:
        target = torch.zeros(hidden.shape[:-1], dtype=torch.int64, device=hidden.device)
        ignore_index = -100
    ignored = target.long() == ignore_index
    head = without_ignored(hidden, ignored), weight, bias
    ref_head = without_ignored(ref_hidden, ignored), ref_weight, ref_bias
    logits = final_logits(*head, temperature, softcap)
    ref_logits = final_logits(*ref_head, temperature, softcap)
    wide, ref_wide = widen(logits, ref_logits)
    assert wide is not None
    assert ref_wide is not None
    # The bias, too, may hold anything.
    kl = of_logits(without_ignored(wide, ignored), without_ignored(ref_wide, ignored))
    if cu_seqlens is None:
        return kl
    mean = reduction == "mean"
    return sequence_reduce(kl, target, cu_seqlens, mean=mean, ignore_index=ignore_index)[0]
