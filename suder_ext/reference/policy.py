"""Policy-gradient losses in plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suder_ext.policy_options import PolicyOptions, policy_options
from suder_ext.reference.logprobs import widen
from suder_ext.reference.sampler_ratio import token_weights
from suder_ext.reference.sequences import per_sequence_sum, segment_ids
from suder_ext.types import (
    KlEstimator,
    PolicyLevel,
    PolicyLoss,
    PolicyLossType,
    PolicyMetrics,
    PolicyReduction,
    SamplingMode,
)

MAX_LOG_RATIO = 700.0  # a ratio stays finite: times an advantage of 0 it is 0
MAX_FACTOR = 600.0  # so does the product of a ratio and a KL estimate
MIN_LOG_WEIGHT, MAX_LOG_WEIGHT = math.log(1e-8), 20.0  # VESPO's


def policy_loss(
    logprob: Tensor,
    old_logprob: Tensor,
    advantage: Tensor,
    cu_seqlens: Tensor,
    ref_logprob: Tensor | None = None,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    delta: float | None = None,
    kl_coef: float = 0.0,
    kl_estimator: KlEstimator = "k3",
    kl_bias_correction: bool = False,
    reduction: PolicyReduction | None = None,
    level: PolicyLevel = "token",
    loss_type: PolicyLossType = "grpo",
    max_length: int | None = None,
    num_items: float | Tensor | None = None,
    token_weight: Tensor | None = None,
    sampling_logprob: Tensor | None = None,
    sampling_mode: SamplingMode = "token_truncate",
    sampling_min: float | None = None,
    sampling_max: float | None = 3.0,
    entropy: Tensor | None = None,
    top_entropy_quantile: float = 1.0,
    sapo_temperature: tuple[float, float] = (1.0, 1.05),
    vespo_k: tuple[float, float] = (2.0, 3.0),
    vespo_lambda: tuple[float, float] = (3.0, 2.0),
    return_metrics: bool = False,
) -> Tensor | PolicyLoss:
    """See `suder_ext.policy_loss`."""
    options = policy_options(
        has_reference=ref_logprob is not None,
        clip=clip,
        clip_high=clip_high,
        delta=delta,
        kl_coef=kl_coef,
        kl_estimator=kl_estimator,
        kl_bias_correction=kl_bias_correction,
        reduction=reduction,
        level=level,
        loss_type=loss_type,
        max_length=max_length,
        num_items=num_items,
        sapo_temperature=sapo_temperature,
        vespo_k=vespo_k,
        vespo_lambda=vespo_lambda,
        return_metrics=return_metrics,
    )
    token_weight, sampler_log_ratio = token_weights(
        old_logprob,
        cu_seqlens,
        token_weight,
        sampling_logprob,
        in_the_ratio=options.surrogate == "vespo",
        mode=sampling_mode,
        least=sampling_min,
        most=sampling_max,
        entropy=entropy,
        top_entropy_quantile=top_entropy_quantile,
    )
    tensors = logprob, old_logprob, ref_logprob, advantage, token_weight, sampler_log_ratio
    results = operator(*tensors, cu_seqlens, *options)
    return finish(results[0], results[1], num_items, return_metrics)


def finish(
    loss: Tensor, metrics: Tensor, num_items: float | Tensor | None, return_metrics: bool
) -> Tensor | PolicyLoss:
    """The public result of the operator's."""
    if isinstance(num_items, Tensor):
        loss = loss / num_items.to(loss.device)
    if not return_metrics:
        return loss
    return PolicyLoss(loss, PolicyMetrics(*metrics.unbind()))


def operator(
    logprob: Tensor,
    old_logprob: Tensor,
    ref_logprob: Tensor | None,
    advantage: Tensor,
    token_weight: Tensor | None,
    sampler_log_ratio: Tensor | None,
    cu_seqlens: Tensor,
    *arguments: object,
) -> tuple[Tensor, Tensor]:
    """torch.ops.suder.policy_loss less its slopes: loss and metrics."""
    options = PolicyOptions(*arguments)  # type: ignore[arg-type]
    wide = widen(logprob, old_logprob, advantage, ref_logprob, token_weight)
    assert wide[0] is not None
    dtype = wide[0].dtype
    # As the kernels do: old and new log-probabilities nearly cancel.
    new, old, a, ref, weight = (None if x is None else x.double() for x in wide)
    assert new is not None
    assert old is not None
    assert a is not None
    sequences = cu_seqlens.numel() - 1
    ids = segment_ids(cu_seqlens, new.numel())
    length = cu_seqlens.diff().to(new.dtype).clamp(min=1)
    per_token = advantage.shape[0] != sequences
    a = a if per_token else a[ids]

    own = new - old
    of_level = own
    if options.level == "sequence":
        of_level = (per_sequence_sum(own, ids, sequences) / length)[ids]
    value = _surrogate(options, own, of_level, new, a, ids, length, sampler_log_ratio)
    if weight is not None:
        value = value * weight
    kl = torch.zeros_like(new)
    if ref is not None:
        both = ref - old if options.level == "token" else of_level + (ref - new)
        kl = _estimate(options, ref - new, of_level, both)
        value = value + options.kl_coef * kl

    count: float | int = options.num_items or max(sequences, 1)
    if options.reduction == "sequence":
        loss = (per_sequence_sum(value, ids, sequences) / length).sum() / count
    elif options.reduction == "token":
        loss = value.sum() / (options.num_items or max(new.numel(), 1))
    elif options.reduction == "sum":
        loss = value.sum() / count
    else:
        # On the device: reading the longest length back would synchronise.
        longest = length.max() if not options.max_length and sequences else options.max_length or 1
        loss = value.sum() / (count * longest)
    metrics = loss.new_zeros(0)
    if options.with_metrics:
        rows = [x.detach() for x in (*_clipped(options, own, of_level, a), kl, exp_of(of_level))]
        filled = (cu_seqlens.diff() > 0).sum()
        metrics = torch.stack(
            [
                (per_sequence_sum(row, ids, sequences) / length).sum() / filled
                if options.level == "sequence" and row is not rows[2]
                else row.sum() / new.numel()
                for row in rows
            ]
        )
    return loss.to(dtype), metrics.to(dtype)


def exp_of(x: Tensor, most: float = MAX_LOG_RATIO) -> Tensor:
    """exp, whose value stops at the limit and whose slope goes on."""
    return (x - (x - most).clamp(min=0).detach()).exp()


def _surrogate(
    options: PolicyOptions,
    own: Tensor,
    of_level: Tensor,
    new: Tensor,
    a: Tensor,
    ids: Tensor,
    length: Tensor,
    sampler_log_ratio: Tensor | None,
) -> Tensor:
    """Each token's, to be minimised: GRPO, arXiv 2402.03300; DAPO, 2503.14476; GSPO, 2507.18071;
    two-sided clip, 2505.07291; CISPO, 2506.13585 and ScaleRL, 2510.13786; SAPO, 2511.20347; VESPO,
    2602.10693; GMPO, 2507.20673; GPG, 2504.02546."""
    low, high = options.clip_low, options.clip_high
    by_sign = [a.new_full((), x) for x in options.by_sign]
    sapo = torch.where(a > 0, by_sign[0], by_sign[1])
    vespo_k = torch.where(a >= 0, by_sign[2], by_sign[3])
    vespo_lambda = torch.where(a >= 0, by_sign[4], by_sign[5])
    sequences = length.shape[0]
    if options.surrogate == "gpg":
        return -a * new
    if options.surrogate == "vespo":
        part = own.clamp(-MAX_LOG_WEIGHT, MAX_LOG_WEIGHT).detach()
        if sampler_log_ratio is not None:
            part = part + sampler_log_ratio.detach().double()
        log_weight = per_sequence_sum(part, ids, sequences)
        log_weight = log_weight.clamp(MIN_LOG_WEIGHT, MAX_LOG_WEIGHT)[ids]
        factor = vespo_lambda + vespo_k * log_weight - vespo_lambda * log_weight.exp()
        return -factor.exp() * a * new
    if options.surrogate == "gmpo":
        limited = torch.where(a < 0, own.clamp(min=-low), own.clamp(max=high))
        limited = torch.where(a == 0, own * 0.0, limited)
        return -exp_of((per_sequence_sum(limited, ids, sequences) / length)[ids]) * a
    ratio = exp_of(of_level)
    if options.surrogate == "cispo":
        return -ratio.clamp(max=high).detach() * a * new
    if options.surrogate == "sapo":
        return -4 / sapo * torch.sigmoid(sapo * (ratio - 1)) * a
    clipped = ratio.clamp(1 - low, 1 + high)
    kept = ratio if math.isinf(options.delta) else ratio.clamp(max=options.delta)
    return -torch.min(kept * a, clipped * a)


def _estimate(options: PolicyOptions, d: Tensor, log_ratio: Tensor, both: Tensor) -> Tensor:
    """k1, k2 or k3 of d = ref - new (Schulman, "Approximating KL divergence", 2020); times the
    ratio it is an estimate under the new policy (DeepSeek-V3.2, arXiv 2512.02556). `both`: the
    sum of d and the log-ratio."""
    if options.kl_estimator == "k1":
        kl = -d
    elif options.kl_estimator == "k2":
        kl = d**2 / 2
    else:
        kl = _rest_of_exp(d)
    if not options.kl_bias_correction:
        return kl
    if options.kl_estimator != "k3":
        return kl * exp_of(log_ratio, MAX_FACTOR)
    # As one exponent: of two that are far apart neither factor alone is a number.
    far = d > 1
    apart, near = d.where(far, 2.0), d.where(~far, 0.0)
    # The ratio's own limit is lower: where both stop, the difference stays above 0.
    rest = (1 + apart) * exp_of(log_ratio.where(far, 0.0), MAX_FACTOR - 10)
    return torch.where(
        far,
        exp_of(both.where(far, 0.0), MAX_FACTOR) - rest,
        _rest_of_exp(near) * exp_of(log_ratio, MAX_FACTOR),
    )


def _clipped(
    options: PolicyOptions, own: Tensor, of_level: Tensor, a: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the clip stopped a token: 1, else 0."""
    none = torch.zeros_like(own)
    if options.surrogate in ("clip", "cispo"):
        ratio = exp_of(of_level)
        if options.surrogate == "cispo":
            return none, ((ratio > options.clip_high) & (a > 0)).to(own.dtype)
        low = (ratio < 1 - options.clip_low) & (a < 0)
        high = (ratio > 1 + options.clip_high) & (a > 0)
    elif options.surrogate == "gmpo":
        low, high = (own < -options.clip_low) & (a < 0), (own > options.clip_high) & (a > 0)
    else:
        return none, none
    return low.to(own.dtype), high.to(own.dtype)


def _rest_of_exp(d: Tensor) -> Tensor:
    """exp(d) - 1 - d, the KL estimate k3, which nearly cancels where d is small."""
    near = d.abs() < 1e-5
    small, other = d.where(near, 0.0), d.where(~near, 1.0)
    capped = other - (other - MAX_FACTOR).clamp(min=0).detach()
    return torch.where(near, small**2 * (0.5 + small / 6), capped.expm1() - other)
