"""CPU kernels of preference_loss and policy_loss: allocate the results, pass addresses.

The slopes are for the backward alone; where there will be none, they are None.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from suder_ext._load import compiled
from suder_ext._ops.cpu.call import address, integers, kernel, vector
from suder_ext.policy_options import KL_ESTIMATORS, REDUCTIONS, SURROGATES, needs_logprob_slope
from suder_ext.preference_options import F_DIVERGENCES, LOSS_TYPES, SORTING
from suder_ext.types import PolicyLevel

assert compiled is not None
_preference, _preference_backward = compiled.preference_loss, compiled.preference_loss_backward
_policy = compiled.policy_loss
LOSS_CODES = {name: code for code, name in enumerate(LOSS_TYPES)}
F_DIVERGENCE_CODES = {name: code for code, name in enumerate(F_DIVERGENCES)}
SURROGATE_CODES = {name: code for code, name in enumerate(SURROGATES)}
REDUCTION_CODES = {name: code for code, name in enumerate(REDUCTIONS)}
KL_CODES = {name: code for code, name in enumerate(KL_ESTIMATORS)}
LEVEL_CODES = {name: code for code, name in enumerate(get_args(PolicyLevel))}


@kernel("preference_loss", can_save_less=True)
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
    for_backward: bool = True,
) -> tuple[Tensor | None, ...]:
    chosen, rejected = chosen.contiguous(), rejected.contiguous()
    ref_chosen, ref_rejected = vector(ref_chosen), vector(ref_rejected)
    chosen_length, rejected_length = vector(chosen_length), vector(rejected_length)
    pairs = chosen.shape[0]
    room = chosen.new_empty
    loss, chosen_reward, rejected_reward = room(pairs), room(pairs), room(pairs)
    chosen_slope = rejected_slope = partner = None
    slopes = 0, 0
    if for_backward:
        chosen_slope, rejected_slope = room(pairs), room(pairs)
        slopes = chosen_slope.data_ptr(), rejected_slope.data_ptr()
    if for_backward or loss_type in SORTING:
        partner = integers(pairs if loss_type in SORTING else 0)
    _preference(
        chosen.data_ptr(),
        rejected.data_ptr(),
        address(ref_chosen),
        address(ref_rejected),
        pairs,
        LOSS_CODES[loss_type],
        F_DIVERGENCE_CODES[f_divergence],
        beta,
        label_smoothing,
        margin,
        f_alpha,
        discopop_tau,
        likelihood_weight,
        address(chosen_length),
        address(rejected_length),
        torch.get_num_threads(),
        loss.data_ptr(),
        chosen_reward.data_ptr(),
        rejected_reward.data_ptr(),
        *slopes,
        address(partner),
    )
    return loss, chosen_reward, rejected_reward, chosen_slope, rejected_slope, partner


@kernel("preference_loss_backward")
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
    upstream = vector(grad_loss), vector(grad_chosen_reward), vector(grad_rejected_reward)
    chosen_length, rejected_length = vector(chosen_length), vector(rejected_length)
    pairs = chosen_slope.shape[0]
    room = chosen_slope.new_empty
    grad_chosen, grad_rejected = room(pairs), room(pairs)
    grad_ref_chosen, grad_ref_rejected = room(pairs * need_ref), room(pairs * need_ref)
    _preference_backward(
        address(upstream[0]),
        address(upstream[1]),
        address(upstream[2]),
        pairs,
        LOSS_CODES[loss_type],
        beta,
        address(chosen_length),
        address(rejected_length),
        chosen_slope.data_ptr(),
        rejected_slope.data_ptr(),
        partner.data_ptr(),
        grad_chosen.data_ptr(),
        grad_rejected.data_ptr(),
        grad_ref_chosen.data_ptr() if need_ref else 0,
        grad_ref_rejected.data_ptr() if need_ref else 0,
    )
    return grad_chosen, grad_rejected, grad_ref_chosen, grad_ref_rejected


@kernel("policy_loss", can_save_less=True)
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
    for_backward: bool = True,
) -> tuple[Tensor | None, ...]:
    logprob, old_logprob = logprob.contiguous(), old_logprob.contiguous()
    ref_logprob, token_weight = vector(ref_logprob), vector(token_weight)
    sampler_log_ratio = vector(sampler_log_ratio)
    advantage, cu_seqlens = advantage.contiguous(), cu_seqlens.contiguous()
    tokens, sequences = logprob.shape[0], cu_seqlens.shape[0] - 1
    room = logprob.new_empty
    loss, metrics = room(()), room(4 if with_metrics else 0)
    ratio_slope = kl_slope = logprob_slope = advantage_slope = weight_slope = None
    if for_backward:
        ratio_slope, advantage_slope = room(tokens), room(advantage.shape[0])
        kl_slope = room(0 if ref_logprob is None else tokens)
        own = needs_logprob_slope(surrogate, kl_bias_correction)
        logprob_slope = room(tokens if own else 0)
        weight_slope = room(0 if token_weight is None else tokens)
    _policy(
        logprob.data_ptr(),
        old_logprob.data_ptr(),
        address(ref_logprob),
        tokens,
        advantage.data_ptr(),
        advantage.shape[0] != sequences,
        address(token_weight),
        address(sampler_log_ratio),
        cu_seqlens.data_ptr(),
        sequences,
        SURROGATE_CODES[surrogate],
        clip_low,
        clip_high,
        delta,
        kl_coef,
        KL_CODES[kl_estimator],
        kl_bias_correction,
        REDUCTION_CODES[reduction],
        LEVEL_CODES[level],
        max_length,
        num_items,
        *by_sign,
        loss.data_ptr(),
        metrics.data_ptr(),  # an empty tensor's is 0
        address(ratio_slope),
        address(kl_slope),
        address(logprob_slope),
        address(advantage_slope),
        address(weight_slope),
        torch.get_num_threads(),
    )
    return loss, metrics, ratio_slope, kl_slope, logprob_slope, advantage_slope, weight_slope
