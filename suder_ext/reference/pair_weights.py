"""Weights of a pair's tokens and of pairs, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext.reference.logprobs import linear_logprob_stats
from suder_ext.reference.sequences import sequence_reduce


def check_ld_alpha(ld_alpha: float | None) -> None:
    """Raise ValueError if it is no weight."""
    if ld_alpha is not None and not 0 <= ld_alpha <= 1:
        raise ValueError(f"ld_alpha is {ld_alpha}; it must be in [0, 1]")


def tail_weight(
    target: Tensor, cu_seqlens: Tensor, ignore_index: int, alpha: float, dtype: torch.dtype
) -> Tensor:
    """`[T]`: alpha for the scored tokens of a sequence that its partner has no token beside, else 1
    (LD-DPO, arXiv 2409.06411)."""
    offsets = cu_seqlens.long().clamp(0, target.shape[0])  # those that are wrong fail elsewhere
    place = torch.nn.functional.pad((target != ignore_index).long().cumsum(0), (1, 0))
    before = place[offsets[:-1]]
    shared = (place[offsets[1:]] - before).view(-1, 2).amin(1).repeat_interleave(2)
    token = torch.arange(target.shape[0], device=target.device)
    if shared.shape[0] == 0:
        return torch.ones_like(token, dtype=dtype)
    sequence = torch.bucketize(token, offsets[1:].contiguous(), right=True)
    sequence = sequence.clamp(max=shared.shape[0] - 1)
    tail = place[1:] - before[sequence] > shared[sequence]
    return torch.ones_like(token, dtype=dtype).masked_fill(tail, alpha)


def wpo_weight(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    cu_seqlens: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """See `suder_ext.wpo_weight`."""
    with torch.no_grad():
        whole, half = (
            linear_logprob_stats(
                hidden,
                weight,
                target,
                bias,
                ignore_index=ignore_index,
                temperature=t,
                softcap=softcap,
            )
            for t in (temperature, temperature / 2)
        )
        aligned = whole.logprob - (half.lse - 2 * whole.lse)
        mean, _ = sequence_reduce(aligned, target, cu_seqlens, mean=True, ignore_index=ignore_index)
        return mean.exp().view(-1, 2).prod(1)
