"""Weights of preference pairs from hidden states."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext import _checks
from suder_ext.functional.logprobs import linear_logprob_stats
from suder_ext.functional.sequences import sequence_reduce


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
    """How likely the policy is to write the pairs itself: WPO's weights (arXiv 2406.11827, eq. 2).

    The product over both sequences of `exp(mean over tokens of log p(token) - log sum_v p(v)^2)`:
    what a token is worth beside one drawn from the model. The sum of squares is the log-sum-exp at
    half the temperature, so logits are computed twice and never held. Give the result to
    `preference_loss` or `linear_preference_loss` as pair_weight.

    Args:
        hidden, weight, target, bias, ignore_index, temperature, softcap: as in `linear_logprob`.
        cu_seqlens: int64 or int32 `[2P + 1]`, sequences 2i and 2i+1 being a pair.

    Returns:
        float32 `[P]` (float64 if an input is), without gradient; NaN where a sequence has no scored
        token.

    Raises:
        TypeError, ValueError, IndexError: as `linear_sequence_logprob`.
    """
    _checks.cu_seqlens(cu_seqlens, "hidden", hidden)
    _checks.pairs(cu_seqlens)
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
