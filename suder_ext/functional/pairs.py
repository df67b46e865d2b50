"""Losses of pairs of packed sequences, and their mean: once log p of the tokens is there, or with
gradients of their own, chunk by chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from suder_ext import _ops
from suder_ext._load import has_kernel
from suder_ext._ops import pair_chunks
from suder_ext.functional.logprobs import linear_logprob, room_for_logits
from suder_ext.functional.preference import preference_loss
from suder_ext.functional.sequences import sequence_reduce
from suder_ext.preference_options import TAKES_LENGTH
from suder_ext.reference.pair_weights import tail_weight
from suder_ext.types import FDivergence, LossType, PreferenceLoss

# So many tokens' logits computed again on the CPU cost less than float32 sums of the weight's
# gradient, which are memory to clear, to read and to round (benchmarks/README.md).
FEW_TOKENS = 256

Loss = tuple[LossType, FDivergence, float, float, float, float, float, float]
"""loss_type, f_divergence, beta, label_smoothing, margin, f_alpha, discopop_tau and
likelihood_weight"""
Softmax = tuple[int, float, float | None]
"""ignore_index, temperature, softcap"""


class Weights(NamedTuple):
    ld_alpha: float | None
    pair_weight: Tensor | None


def losses_of(
    per_token: Tensor,
    target: Tensor,
    cu_seqlens: Tensor,
    ref_logprob: Tensor | None,
    ignore_index: int,
    loss: Loss,
    weights: Weights,
) -> PreferenceLoss:
    """The losses of all pairs, from log p of their tokens."""
    if weights.ld_alpha is not None:
        per_token = per_token * tail_weight(
            target, cu_seqlens, ignore_index, weights.ld_alpha, per_token.dtype
        )
    total, count = sequence_reduce(
        per_token, target, cu_seqlens, mean=False, ignore_index=ignore_index
    )
    # The NaN of a sequence without tokens goes around the loss: a pair that is left out of the mean
    # (upstream gradient 0) must not turn its partner's gradient into 0 * NaN.
    total = total.masked_fill(count == 0, 0.0)
    missing, pair_weight = missing_of(count), weights.pair_weight
    if pair_weight is not None:  # wpo_weight of such a pair is NaN
        pair_weight = pair_weight.detach().masked_fill(missing, 0.0)
    loss_type, f_divergence, beta, label_smoothing, margin, *others = loss
    f_alpha, discopop_tau, likelihood_weight = others
    takes_length = loss_type in TAKES_LENGTH
    result = preference_loss(
        total[0::2],
        total[1::2],
        None if ref_logprob is None else ref_logprob[0::2],
        None if ref_logprob is None else ref_logprob[1::2],
        loss_type=loss_type,
        beta=beta,
        label_smoothing=label_smoothing,
        margin=margin,
        f_divergence=f_divergence,
        f_alpha=f_alpha,
        discopop_tau=discopop_tau,
        likelihood_weight=likelihood_weight,
        chosen_length=count[0::2] if takes_length else None,
        rejected_length=count[1::2] if takes_length else None,
        pair_weight=pair_weight,
    )
    return PreferenceLoss(*(value.masked_fill(missing, torch.nan) for value in result))


def mean_loss_of(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    cu_seqlens: Tensor,
    offsets: Tensor,
    ref_logprob: Tensor | None,
    loss: Loss,
    softmax: Softmax,
    weights: Weights,
) -> PreferenceLoss:
    """The mean over whole pairs, from checked arguments; `offsets`: cu_seqlens, where it came."""
    ignore_index = softmax[0]
    ref_logprob = None if ref_logprob is None else ref_logprob.detach()
    scored, count = of_whole_pairs(target, cu_seqlens, ignore_index)
    if (
        weights.ld_alpha is None
        and weights.pair_weight is None
        and _goes_in_chunks(hidden, weight, bias, ref_logprob, offsets)
    ):
        results = _ops.linear_preference_loss(
            hidden,
            weight,
            bias,
            scored.long(),
            offsets.long(),
            count,
            None if ref_logprob is None else ref_logprob.float().contiguous(),
            *loss,
            *softmax,
            *(t is not None and t.requires_grad for t in (hidden, weight, bias)),
        )
        return PreferenceLoss(*results[:3])
    per_token = _logprob_with_room(hidden, weight, scored, bias, softmax)
    result = losses_of(per_token, target, cu_seqlens, ref_logprob, ignore_index, loss, weights)
    ends = torch.arange(2, device=hidden.device) * result.loss.shape[0]
    missing = missing_of(count).long()
    mean, _ = sequence_reduce(result.loss, missing, ends, mean=True, ignore_index=1)
    return PreferenceLoss(mean[0], *(reward.detach() for reward in result[1:]))


def missing_of(count: Tensor) -> Tensor:
    """Whether one of a pair's sequences has no scored token, bool `[P]`."""
    return (count == 0).view(-1, 2).any(1)


def of_whole_pairs(target: Tensor, cu_seqlens: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The targets, those of pairs that are left out ignored; the scored tokens of each sequence."""
    nothing = torch.zeros(target.shape, dtype=torch.float32, device=target.device)
    _, count = sequence_reduce(nothing, target, cu_seqlens, mean=False, ignore_index=ignore_index)
    token = torch.arange(target.shape[0], device=target.device)
    sequence = torch.bucketize(token, cu_seqlens[1:].long().contiguous(), right=True)
    missing = missing_of(count)
    if missing.shape[0] == 0:
        return target, count
    pair = (sequence // 2).clamp(max=missing.shape[0] - 1)  # wrong offsets read nothing elsewhere
    return target.masked_fill(missing[pair], ignore_index), count


def _goes_in_chunks(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ref_logprob: Tensor | None,
    offsets: Tensor,
) -> bool:
    """Whether a gradient is wanted, can be made in chunks, and is cheaper so."""
    if hidden.device.type not in pair_chunks.DEVICES or offsets.device.type != "cpu":
        return False
    if not torch.is_grad_enabled():
        return False
    if not any(t is not None and t.requires_grad for t in (hidden, weight, bias)):
        return False
    if not has_kernel("linear_logprob", hidden, weight, ref_logprob):
        return False
    few_tokens = FEW_TOKENS if weight.requires_grad else 0
    return (hidden.shape[0] - few_tokens) * weight.shape[0] > pair_chunks.CPU_WORKSPACE


def _logprob_with_room(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    softmax: Softmax,
) -> Tensor:
    """linear_logprob, which on the CPU keeps as many logits as chunks would."""
    keep = room_for_logits(hidden, weight, bias, pair_chunks.CPU_WORKSPACE)
    if keep > 0 and has_kernel("linear_logprob", hidden):
        arguments = hidden, weight, bias, target.long(), *softmax, False, keep, False
        results: list[Tensor] = _ops.linear_logprob(*arguments)
        return results[0]
    ignore_index, temperature, softcap = softmax
    return linear_logprob(
        hidden,
        weight,
        target,
        bias,
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap,
    )
