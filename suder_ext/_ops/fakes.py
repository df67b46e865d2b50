"""Shapes and dtypes of the operators' results, for fake and meta tensors. No data is read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suder_ext._ops.schemas import library
from suder_ext.policy_options import PolicyOptions, needs_logprob_slope
from suder_ext.preference_options import SORTING


def _floats(like: Tensor, *size: int | torch.SymInt) -> Tensor:
    return like.new_empty(size, dtype=torch.float32)


def _stats(rows: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor, Tensor]:
    n = rows.shape[0]
    return _floats(rows, n), _floats(rows, n), _floats(rows, n if with_entropy else 0)


@torch.library.register_fake("suder::linear_logprob", lib=library)
def _linear_logprob(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, *options: Any
) -> tuple[Tensor, ...]:
    torch._check(hidden.dim() == 2 and weight.dim() == 2 and target.dim() == 1)
    torch._check(hidden.shape[1] == weight.shape[1])
    torch._check(hidden.shape[0] == target.shape[0])
    torch._check(hidden.dtype == weight.dtype)
    with_entropy, keep_logits, with_argmax = options[-3:]
    argmax = hidden.new_empty((hidden.shape[0] if with_argmax else 0,), dtype=torch.int64)
    return *_stats(hidden, with_entropy), _floats(hidden, keep_logits), argmax


@torch.library.register_fake("suder::linear_logprob_backward", lib=library)
def _linear_logprob_backward(
    grad_logprob: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    lse: Tensor,
    entropy: Tensor,
    logits: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        hidden.new_empty(hidden.shape if need_hidden else (0,)),
        weight.new_empty(weight.shape if need_weight else (0,)),
        weight.new_empty((weight.shape[0],) if need_bias else (0,)),
    )


@torch.library.register_fake("suder::linear_kl", lib=library)
def _linear_kl(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    ref_bias: Tensor | None,
    target: Tensor,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    for rows, head in ((hidden, weight), (ref_hidden, ref_weight)):
        torch._check(rows.dim() == 2 and head.dim() == 2 and target.dim() == 1)
        torch._check(rows.shape[1] == head.shape[1])
        torch._check(rows.shape[0] == target.shape[0])
        torch._check(rows.dtype == head.dtype == hidden.dtype)
    torch._check(weight.shape[0] == ref_weight.shape[0])
    n = hidden.shape[0]
    return _floats(hidden, n), _floats(hidden, n, 4), _floats(hidden, 2 * options[-1])


@torch.library.register_fake("suder::linear_kl_backward", lib=library)
def _linear_kl_backward(
    grad_kl: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    ref_bias: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:
    vocab = weight.shape[:1]
    shapes = (
        *(hidden.shape, weight.shape, vocab),
        *(ref_hidden.shape, ref_weight.shape, vocab),
    )
    return tuple(
        hidden.new_empty(shape if need else (0,))
        for shape, need in zip(shapes, rest[-1], strict=True)
    )


@torch.library.register_fake("suder::logprob", lib=library)
def _logprob(logits: Tensor, target: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    torch._check(logits.dim() == 2 and target.dim() == 1)
    torch._check(logits.shape[0] == target.shape[0])
    return _stats(logits, options[-1])


@torch.library.register_fake("suder::logprob_backward", lib=library)
def _logprob_backward(
    grad_logprob: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    logits: Tensor,
    *saved: Any,
) -> Tensor:
    return logits.new_empty(logits.shape)


@torch.library.register_fake("suder::sequence_reduce", lib=library)
def _sequence_reduce(
    logprob: Tensor, target: Tensor, cu_seqlens: Tensor, *options: Any
) -> tuple[Tensor, Tensor]:
    torch._check(logprob.dim() == 1 and target.dim() == 1 and cu_seqlens.dim() == 1)
    sequences = cu_seqlens.shape[0] - 1
    return _floats(logprob, sequences), cu_seqlens.new_empty((sequences,), dtype=torch.int64)


@torch.library.register_fake("suder::sequence_reduce_backward", lib=library)
def _sequence_reduce_backward(grad_value: Tensor, target: Tensor, *saved: Any) -> Tensor:
    return _floats(grad_value, target.shape[0])


@torch.library.register_fake("suder::group_advantage", lib=library)
def _group_advantage(
    reward: Tensor, group_size: int, normalize: str
) -> tuple[Tensor, Tensor, Tensor]:
    groups = reward.shape[0] // group_size
    best = reward.new_empty((groups,), dtype=torch.int64)
    return _floats(reward, reward.shape[0]), best, torch.empty_like(best)


@torch.library.register_fake("suder::preference_loss", lib=library)
def _preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor | None,
    ref_rejected: Tensor | None,
    chosen_length: Tensor | None,
    rejected_length: Tensor | None,
    loss_type: str,
    *options: Any,
) -> tuple[Tensor, ...]:
    torch._check(chosen.dim() == 1 and chosen.shape == rejected.shape)
    pairs = chosen.shape[0]
    partner = chosen.new_empty((pairs if loss_type in SORTING else 0,), dtype=torch.int64)
    return *(_floats(chosen, pairs) for _ in range(5)), partner


@torch.library.register_fake("suder::preference_loss_backward", lib=library)
def _preference_loss_backward(
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
    return tuple(_floats(chosen_slope, n) for n in (pairs, pairs, *(2 * (pairs * need_ref,))))


@torch.library.register_fake("suder::linear_preference_loss", lib=library)
def _linear_preference_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    cu_seqlens: Tensor,
    count: Tensor,
    *options: Any,
) -> tuple[Tensor, ...]:
    torch._check(hidden.dim() == 2 and weight.dim() == 2 and target.dim() == 1)
    torch._check(hidden.shape[1] == weight.shape[1])
    torch._check(hidden.shape[0] == target.shape[0])
    torch._check(cu_seqlens.shape[0] == count.shape[0] + 1)
    pairs, (need_hidden, need_weight, need_bias) = count.shape[0] // 2, options[-3:]
    return (
        _floats(hidden),
        _floats(hidden, pairs),
        _floats(hidden, pairs),
        _floats(hidden, *(hidden.shape if need_hidden else (0,))),
        _floats(hidden, *(weight.shape if need_weight else (0,))),
        _floats(hidden, weight.shape[0] if need_bias else 0),
    )


@torch.library.register_fake("suder::linear_preference_loss_backward", lib=library)
def _linear_preference_loss_backward(
    grad_loss: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, *slopes: Tensor
) -> tuple[Tensor, ...]:
    return tuple(slope.new_empty(slope.shape, dtype=hidden.dtype) for slope in slopes)


@torch.library.register_fake("suder::policy_loss", lib=library)
def _policy_loss(
    logprob: Tensor,
    old_logprob: Tensor,
    ref_logprob: Tensor | None,
    advantage: Tensor,
    token_weight: Tensor | None,
    sampler_log_ratio: Tensor | None,
    cu_seqlens: Tensor,
    *options: Any,
) -> tuple[Tensor, ...]:
    torch._check(logprob.dim() == 1 and logprob.shape == old_logprob.shape)
    tokens, chosen = logprob.shape[0], PolicyOptions(*options)
    own = needs_logprob_slope(chosen.surrogate, chosen.kl_bias_correction)
    return (
        _floats(logprob),
        _floats(logprob, 4 if chosen.with_metrics else 0),
        _floats(logprob, tokens),
        _floats(logprob, 0 if ref_logprob is None else tokens),
        _floats(logprob, tokens if own else 0),
        _floats(logprob, advantage.shape[0]),
        _floats(logprob, 0 if token_weight is None else tokens),
    )


@torch.library.register_fake("suder::policy_loss_backward", lib=library)
def _policy_loss_backward(
    grad_loss: Tensor,
    logprob: Tensor,
    old_logprob: Tensor,
    ratio_slope: Tensor,
    kl_slope: Tensor,
    logprob_slope: Tensor,
    advantage_slope: Tensor,
    weight_slope: Tensor,
) -> tuple[Tensor, ...]:
    slopes = ratio_slope, ratio_slope, kl_slope, advantage_slope, weight_slope
    return tuple(torch.empty_like(slope) for slope in slopes)


@torch.library.register_fake("suder::sample_token", lib=library)
def _sample_token(logits: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    torch._check(logits.dim() == 2)
    return _sampled(logits)


@torch.library.register_fake("suder::linear_sample_token", lib=library)
def _linear_sample_token(
    hidden: Tensor, weight: Tensor, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    torch._check(hidden.dim() == 2 and weight.dim() == 2)
    torch._check(hidden.shape[1] == weight.shape[1])
    return _sampled(hidden)


def _sampled(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n = rows.shape[0]
    return rows.new_empty((n,), dtype=torch.int64), _floats(rows, n), _floats(rows, n)
