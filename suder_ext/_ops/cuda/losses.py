"""preference_loss and policy_loss on CUDA: allocate the results, pass addresses."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from suder_ext._ops.cuda.call import Ops, floats, integers, run, vector
from suder_ext.policy_options import KL_ESTIMATORS, REDUCTIONS, SURROGATES, needs_logprob_slope
from suder_ext.preference_options import F_DIVERGENCES, LOSS_TYPES, SORTING
from suder_ext.types import PolicyLevel

LOSS_CODES = {name: code for code, name in enumerate(LOSS_TYPES)}
F_DIVERGENCE_CODES = {name: code for code, name in enumerate(F_DIVERGENCES)}
SURROGATE_CODES = {name: code for code, name in enumerate(SURROGATES)}
REDUCTION_CODES = {name: code for code, name in enumerate(REDUCTIONS)}
KL_CODES = {name: code for code, name in enumerate(KL_ESTIMATORS)}
LEVEL_CODES = {name: code for code, name in enumerate(get_args(PolicyLevel))}


def preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor | None,
    ref_rejected: Tensor | None,
    chosen_length: Tensor | None,
    rejected_length: Tensor | None,
    loss_type: str,
    f_divergence: str,
    beta: float,
    label_smoothing: float,
    margin: float,
    f_alpha: float,
    discopop_tau: float,
    likelihood_weight: float,
) -> tuple[Tensor, ...]:
    pairs = chosen.shape[0]
    loss, chosen_reward, rejected_reward, chosen_slope, rejected_slope = (
        floats(chosen, pairs) for _ in range(5)
    )
    sorts = loss_type in SORTING
    partner = integers(chosen, pairs * sorts)
    run(
        "preference_loss",
        chosen,
        chosen=chosen.contiguous(),
        rejected=rejected.contiguous(),
        ref_chosen=vector(ref_chosen),
        ref_rejected=vector(ref_rejected),
        pairs=pairs,
        loss_type=LOSS_CODES[loss_type],
        f_divergence=F_DIVERGENCE_CODES[f_divergence],
        beta=beta,
        label_smoothing=label_smoothing,
        margin=margin,
        f_alpha=f_alpha,
        discopop_tau=discopop_tau,
        likelihood_weight=likelihood_weight,
        chosen_length=vector(chosen_length),
        rejected_length=vector(rejected_length),
        ranks=integers(chosen, 2 * pairs) if sorts else None,
        loss=loss,
        chosen_reward=chosen_reward,
        rejected_reward=rejected_reward,
        chosen_slope=chosen_slope,
        rejected_slope=rejected_slope,
        partner=partner,
    )
    return loss, chosen_reward, rejected_reward, chosen_slope, rejected_slope, partner


def preference_loss_backward(
    grad_loss: Tensor | None,
    grad_chosen_reward: Tensor | None,
    grad_rejected_reward: Tensor | None,
    chosen: Tensor,
    rejected: Tensor,
    chosen_slope: Tensor,
    rejected_slope: Tensor,
    partner: Tensor,
    chosen_length: Tensor | None,
    rejected_length: Tensor | None,
    loss_type: str,
    beta: float,
    need_ref: bool,
) -> tuple[Tensor, ...]:
    pairs = chosen_slope.shape[0]
    grad_chosen, grad_rejected = floats(chosen_slope, pairs), floats(chosen_slope, pairs)
    grad_ref_chosen, grad_ref_rejected = (floats(chosen_slope, pairs * need_ref) for _ in range(2))
    run(
        "preference_loss_backward",
        chosen_slope,
        grad_loss=vector(grad_loss),
        grad_chosen_reward=vector(grad_chosen_reward),
        grad_rejected_reward=vector(grad_rejected_reward),
        pairs=pairs,
        loss_type=LOSS_CODES[loss_type],
        beta=beta,
        chosen_length=vector(chosen_length),
        rejected_length=vector(rejected_length),
        chosen_slope=chosen_slope,
        rejected_slope=rejected_slope,
        partner=partner,
        grad_chosen=grad_chosen,
        grad_rejected=grad_rejected,
        grad_ref_chosen=grad_ref_chosen if need_ref else None,
        grad_ref_rejected=grad_ref_rejected if need_ref else None,
    )
    return grad_chosen, grad_rejected, grad_ref_chosen, grad_ref_rejected


def policy_loss(
    logprob: Tensor,
    old_logprob: Tensor,
    ref_logprob: Tensor | None,
    advantage: Tensor,
    token_weight: Tensor | None,
    sampler_log_ratio: Tensor | None,
    cu_seqlens: Tensor,
    surrogate: str,
    clip_low: float,
    clip_high: float,
    delta: float,
    kl_coef: float,
    kl_estimator: str,
    kl_bias_correction: bool,
    reduction: str,
    level: str,
    max_length: int,
    num_items: float,
    by_sign: list[float],
    with_metrics: bool,
) -> tuple[Tensor, ...]:
    tokens, sequences = logprob.shape[0], cu_seqlens.shape[0] - 1
    own = needs_logprob_slope(surrogate, kl_bias_correction)
    loss, metrics = floats(logprob), floats(logprob, 4 if with_metrics else 0)
    ratio_slope, advantage_slope = floats(logprob, tokens), floats(logprob, advantage.shape[0])
    kl_slope = floats(logprob, 0 if ref_logprob is None else tokens)
    logprob_slope = floats(logprob, tokens if own else 0)
    weight_slope = floats(logprob, 0 if token_weight is None else tokens)
    signs = ("sapo", "vespo_k", "vespo_lambda")
    names = (f"{name}_{sign}" for name in signs for sign in ("positive", "negative"))
    run(
        "policy_loss",
        logprob,
        logprob=logprob.contiguous(),
        old_logprob=old_logprob.contiguous(),
        ref_logprob=vector(ref_logprob),
        tokens=tokens,
        advantage=advantage.contiguous(),
        advantage_per_token=advantage.shape[0] != sequences,
        token_weight=vector(token_weight),
        sampler_log_ratio=vector(sampler_log_ratio),
        cu_seqlens=cu_seqlens.contiguous(),
        sequences=sequences,
        surrogate=SURROGATE_CODES[surrogate],
        clip_low=clip_low,
        clip_high=clip_high,
        delta=delta,
        kl_coef=kl_coef,
        kl_estimator=KL_CODES[kl_estimator],
        kl_bias_correction=kl_bias_correction,
        reduction=REDUCTION_CODES[reduction],
        level=LEVEL_CODES[level],
        max_length=max_length,
        num_items=num_items,
        **dict(zip(names, by_sign, strict=True)),
        totals=floats(logprob, 5 * sequences, dtype=torch.float64),
        loss=loss,
        metrics=metrics,  # the address of an empty tensor is 0
        ratio_slope=ratio_slope,
        kl_slope=kl_slope,
        logprob_slope=logprob_slope,
        advantage_slope=advantage_slope,
        weight_slope=weight_slope,
    )
    return loss, metrics, ratio_slope, kl_slope, logprob_slope, advantage_slope, weight_slope


OPS: Ops = {
    "preference_loss": preference_loss,
    "preference_loss_backward": preference_loss_backward,
    "policy_loss": policy_loss,
}
