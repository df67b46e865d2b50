"""Preference losses of pairs of sequences in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext.preference_options import ALPHA, DISCOPOP_TAU, TAKES_LENGTH, check_preference_options
from suder_ext.reference.logprobs import linear_logprob, widen
from suder_ext.reference.pair_weights import check_ld_alpha, tail_weight
from suder_ext.reference.preference_formulas import LOSSES, Pairs, score
from suder_ext.reference.sequences import sequence_reduce
from suder_ext.types import FDivergence, LossType, PairReduction, PreferenceLoss


def preference_loss(
    chosen_logprob: Tensor,
    rejected_logprob: Tensor,
    ref_chosen_logprob: Tensor | None = None,
    ref_rejected_logprob: Tensor | None = None,
    *,
    loss_type: LossType = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    f_divergence: FDivergence = "reverse_kl",
    f_alpha: float = ALPHA,
    discopop_tau: float = DISCOPOP_TAU,
    likelihood_weight: float = 1.0,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    pair_weight: Tensor | None = None,
) -> PreferenceLoss:
    """See `suder_ext.preference_loss`."""
    check_preference_options(
        loss_type,
        beta=beta,
        label_smoothing=label_smoothing,
        margin=margin,
        f_divergence=f_divergence,
        f_alpha=f_alpha,
        discopop_tau=discopop_tau,
        likelihood_weight=likelihood_weight,
        lengths={
            "chosen_length": chosen_length is not None,
            "rejected_length": rejected_length is not None,
        },
        reference={
            "ref_chosen_logprob": ref_chosen_logprob is not None,
            "ref_rejected_logprob": ref_rejected_logprob is not None,
        },
    )
    logprobs = widen(chosen_logprob, rejected_logprob, ref_chosen_logprob, ref_rejected_logprob)
    assert logprobs[0] is not None
    dtype = logprobs[0].dtype
    # As the kernels do: log-probabilities of long sequences cancel.
    policy, other, ref_policy, ref_other = (None if x is None else x.double() for x in logprobs)
    assert policy is not None
    assert other is not None
    if ref_policy is None or ref_other is None:
        ref_policy, ref_other = torch.zeros_like(policy), torch.zeros_like(other)
    chosen, rejected = policy - ref_policy, other - ref_other
    pairs = Pairs(
        chosen,
        rejected,
        score(chosen, f_divergence, f_alpha),
        score(rejected, f_divergence, f_alpha),
        policy - other,
        ref_policy - ref_other,
        chosen_length,
        rejected_length,
        beta,
        label_smoothing,
        margin,
        discopop_tau,
        likelihood_weight,
    )
    # `sft` is a likelihood of the policy alone; its rewards still tell the ratio to the reference.
    loss = LOSSES[loss_type](pairs._replace(chosen=policy) if loss_type == "sft" else pairs)
    if pair_weight is not None:
        loss = loss * pair_weight
    if loss_type in ("simpo", "orpo"):
        chosen, rejected = pairs.averages(chosen, rejected)
    return PreferenceLoss(*(x.to(dtype) for x in (loss, beta * chosen, beta * rejected)))


def linear_preference_loss(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    cu_seqlens: Tensor,
    bias: Tensor | None = None,
    ref_logprob: Tensor | None = None,
    *,
    loss_type: LossType = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    f_divergence: FDivergence = "reverse_kl",
    f_alpha: float = ALPHA,
    discopop_tau: float = DISCOPOP_TAU,
    likelihood_weight: float = 1.0,
    ld_alpha: float | None = None,
    pair_weight: Tensor | None = None,
    reduction: PairReduction = "none",
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> PreferenceLoss:
    """See `suder_ext.linear_preference_loss`."""
    if reduction not in ("none", "mean"):
        raise ValueError(f"reduction is {reduction!r}; it must be 'none' or 'mean'")
    check_preference_options(
        loss_type,
        beta=beta,
        label_smoothing=label_smoothing,
        margin=margin,
        f_divergence=f_divergence,
        f_alpha=f_alpha,
        discopop_tau=discopop_tau,
        likelihood_weight=likelihood_weight,
        lengths={"cu_seqlens": loss_type in TAKES_LENGTH},
        reference={"ref_logprob": ref_logprob is not None},
    )
    per_token = linear_logprob(
        hidden,
        weight,
        target,
        bias,
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap,
    )
    check_ld_alpha(ld_alpha)
    if ld_alpha is not None:
        per_token = per_token * tail_weight(
            target, cu_seqlens, ignore_index, ld_alpha, per_token.dtype
        )
    total, count = sequence_reduce(
        per_token, target, cu_seqlens, mean=False, ignore_index=ignore_index
    )
    missing = (count == 0).view(-1, 2).any(1)
    if pair_weight is not None:
        pair_weight = pair_weight.detach().masked_fill(missing, 0.0)
    if reduction == "mean":
        total = total.masked_fill(missing.repeat_interleave(2), 0.0)
    lengths = {}
    if loss_type in TAKES_LENGTH:
        lengths = {"chosen_length": count[0::2], "rejected_length": count[1::2]}
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
        **lengths,
        pair_weight=pair_weight,
    )
    if reduction == "none":
        return result
    mean = result.loss.masked_fill(missing, 0.0).sum() / (~missing).sum()
    rewards = (reward.detach().masked_fill(missing, torch.nan) for reward in result[1:])
    return PreferenceLoss(mean, *rewards)
