"""Policy-gradient losses over packed sequences."""

from __future__ import annotations

from typing import Literal, overload

from torch import Tensor

from suder_ext import _checks, _ops
from suder_ext._load import has_kernel
from suder_ext._ops import eager
from suder_ext.functional.padded import packed
from suder_ext.functional.sequences import sequence_reduce
from suder_ext.policy_options import policy_options
from suder_ext.reference import policy as by_reference
from suder_ext.reference.sampler_ratio import token_weights
from suder_ext.types import (
    KlEstimator,
    PolicyLevel,
    PolicyLoss,
    PolicyLossType,
    PolicyReduction,
    SamplingMode,
)


@overload
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
    return_metrics: Literal[False] = False,
) -> Tensor: ...
@overload
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
    return_metrics: Literal[True],
) -> PolicyLoss: ...
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
    """Policy-gradient loss of TRL's, Liger's and verl's names: GRPO, DAPO, GSPO, CISPO, GPG, ...

    With `ratio = exp(logprob - old_logprob)`, a token of sequence b costs
    `-min(min(ratio, delta) * A_b, clamp(ratio, 1 - clip, 1 + clip_high) * A_b)` plus
    `kl_coef * (exp(ref - logprob) - (ref - logprob) - 1)` (GRPO, arXiv 2402.03300, eqs. 3 and 4;
    the two clips are DAPO's, arXiv 2503.14476, eq. 8; delta is INTELLECT-2's two-sided clip, arXiv
    2505.07291, and the dual clip of arXiv 1912.09729). `level="sequence"` takes one ratio a
    sequence, `exp(mean over its tokens of logprob - old_logprob)` (GSPO, arXiv 2507.18071, eq. 7).

    loss_type, in brackets the reduction that None takes: "grpo" (sequence), "bnpo" and "dapo"
    (token), "dr_grpo" (constant) and "luspo" (sum; arXiv 2602.05261, with level="sequence") are
    that same token. In the place of its first term have

    - "cispo" (token): `-min(ratio, clip_high) * A * logprob`, the ratio a constant: clip_high is
      the largest ratio itself and must be given (arXiv 2506.13585; 5.0 in ScaleRL, 2510.13786);
    - "sapo" (sequence): `-4 / t * sigmoid(t * (ratio - 1)) * A` (arXiv 2511.20347), t by A's sign;
    - "vespo" (token): `-phi(w) * A * logprob`, phi(w) the constant
      `exp(lambda + k log w - lambda w)` of the whole sequence's ratio w (arXiv 2602.10693), k and
      lambda by A's sign; w stays within 1e-8 and e^20;
    - "gmpo" (sequence): `-exp(mean over the sequence of log ratio, limited) * A`, the limit
      clip_high where A is above 0 and -clip where it is below (arXiv 2507.20673);
    - "gpg" (token): `-A * logprob` (arXiv 2504.02546).

    Reductions: "sequence" averages over each sequence's tokens, then over sequences (GRPO); "token"
    averages over all tokens (DAPO); "constant" divides the sum by `B * max_length` (Dr.GRPO,
    arXiv 2503.20783); "sum" divides it by B. An empty sequence costs nothing, and still counts in
    B: a choice, which is TRL's.

    Values stay numbers, and gradients too, where a ratio is too much for float32: clipped, it has
    slope 0; else both are infinite.

    Args:
        logprob: float `[T]`, of the policy being trained.
        old_logprob: float `[T]`, of the policy that drew the tokens.
        advantage: float `[B]`, or `[T]`: each token's own. With B = T it is taken as `[B]`.
        cu_seqlens: int64 or int32 `[B + 1]`, sorted from 0 to T. Pack scored tokens only. Or a mask
            `[B, T]` of a padded batch (bool or integer, 0 where no token is scored), beside
            `[B, T]` wherever `[T]` stands here: `pack_padded`.
        ref_logprob: float `[T]`, of the reference policy; given if and only if kl_coef is not 0.
        clip: in `[0, 1)`.
        clip_high: at least 0; None takes `clip`.
        delta: above 0; the largest ratio that counts, for negative advantages as well.
        kl_coef: weight of the KL estimate.
        kl_estimator: "k1", "k2" or "k3" (Schulman, "Approximating KL divergence", 2020), above: k3.
        kl_bias_correction: the estimate times the ratio (DeepSeek-V3.2, arXiv 2512.02556).
        reduction: "sequence", "token", "constant" or "sum"; None: that of the loss_type.
        level: "token" or "sequence".
        max_length: the constant of reduction "constant", taken by no other; None takes the longest
            sequence.
        num_items: what the reduction divides by in the place of this batch's own T ("token") or B:
            the count over all processes and accumulation steps, over the number of processes where
            gradients are averaged. A number, or a scalar tensor, which is not read back.
        token_weight: float `[T]`, times each token's first term; not the KL estimate, nor a count.
        sampling_logprob: float `[T]`, by the engine that drew the tokens, where old_logprob is what
            the trainer makes of them: the first term is times `exp(old_logprob - sampling_logprob)`
            (VESPO's w has it inside). NaN: not known, no correction.
        sampling_mode: of that ratio: of the "token" or the "sequence", and whether it is a
            "truncate"d one outside of `[sampling_min, sampling_max]` or 0 ("mask").
        sampling_min, sampling_max: None: no limit.
        entropy, top_entropy_quantile: float `[T]`; only the tokens whose entropy is in the batch's
            highest part of this size keep their first term (arXiv 2506.01939).
        sapo_temperature, vespo_k, vespo_lambda: for positive advantages, and for the others.
        return_metrics: also return `PolicyMetrics`.

    Returns:
        float32 scalar (float64 if an input is), 0 for an empty batch, differentiable in logprob,
        old_logprob, ref_logprob, advantage and token_weight. sampling_logprob and entropy are
        constants. With return_metrics: `PolicyLoss(loss, metrics)`.

    Raises:
        TypeError, ValueError: an argument that is not taken, naming it.
    """
    if isinstance(cu_seqlens, Tensor) and cu_seqlens.dim() == 2:
        if isinstance(advantage, Tensor) and advantage.dim() == 2:
            _, advantage = packed(cu_seqlens, advantage=advantage)
        cu_seqlens, logprob, old_logprob, *others = packed(
            cu_seqlens,
            logprob=logprob,
            old_logprob=old_logprob,
            ref_logprob=ref_logprob,
            token_weight=token_weight,
            sampling_logprob=sampling_logprob,
            entropy=entropy,
        )
        ref_logprob, token_weight, sampling_logprob, entropy = others
    tensors = logprob, old_logprob, ref_logprob, advantage, token_weight
    direct = _is_plain(*tensors, sampling_logprob, cu_seqlens)
    if not direct:
        _check(*tensors, sampling_logprob, cu_seqlens)
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
    sampler_log_ratio = None
    if sampling_logprob is not None or entropy is not None or top_entropy_quantile != 1:
        if entropy is not None:
            _checks.like("entropy", entropy, "logprob", logprob)
        token_weight, sampler_log_ratio = token_weights(
            old_logprob,
            cu_seqlens,
            token_weight,
            sampling_logprob,
            in_the_ratio=loss_type == "vespo",
            mode=sampling_mode,
            least=sampling_min,
            most=sampling_max,
            entropy=entropy,
            top_entropy_quantile=top_entropy_quantile,
            reduce=sequence_reduce,
        )
    inputs = logprob, old_logprob, ref_logprob, advantage, token_weight, sampler_log_ratio
    if direct:
        results = eager.call("policy_loss", *inputs, cu_seqlens, *options)
    elif has_kernel("policy_loss", *inputs):
        floats = (None if tensor is None else tensor.float() for tensor in inputs)
        results = _ops.policy_loss(*floats, cu_seqlens.long(), *options)
    else:
        _checks.cu_seqlens_values(cu_seqlens, logprob.shape[0])
        results = by_reference.operator(*inputs, cu_seqlens, *options)
    return by_reference.finish(results[0], results[1], num_items, return_metrics)


def _is_plain(
    logprob: Tensor,
    old_logprob: Tensor,
    ref_logprob: Tensor | None,
    advantage: Tensor,
    token_weight: Tensor | None,
    sampling_logprob: Tensor | None,
    cu_seqlens: Tensor,
) -> bool:
    """Whether the CPU kernel can take the tensors as they are; then no `_check` can fail."""
    optional = [t for t in (ref_logprob, token_weight, sampling_logprob) if t is not None]
    if not eager.ready("policy_loss", logprob, old_logprob, advantage, cu_seqlens, *optional):
        return False
    offsets = eager.shape(1, eager.INT64, cu_seqlens)
    tokens = eager.shape(1, eager.FLOAT32, logprob, old_logprob, *optional)
    if offsets is None or tokens is None:
        return False
    return eager.shape(1, eager.FLOAT32, advantage) in ((offsets[0] - 1,), tokens)


def _check(
    logprob: Tensor,
    old_logprob: Tensor,
    ref_logprob: Tensor | None,
    advantage: Tensor,
    token_weight: Tensor | None,
    sampling_logprob: Tensor | None,
    cu_seqlens: Tensor,
) -> None:
    _checks.tensor("logprob", logprob, 1, _checks.FLOATS)
    _checks.like("old_logprob", old_logprob, "logprob", logprob)
    for name, value in (
        ("ref_logprob", ref_logprob),
        ("token_weight", token_weight),
        ("sampling_logprob", sampling_logprob),
    ):
        if value is not None:
            _checks.like(name, value, "logprob", logprob)
    _checks.cu_seqlens(cu_seqlens, "logprob", logprob)
    _checks.tensor("advantage", advantage, 1, _checks.FLOATS)
    if advantage.shape != logprob.shape:
        size = (cu_seqlens.shape[0] - 1,)
        _checks.shape("advantage", advantage, size, "the B of cu_seqlens[B+1], or the T of logprob")
    _checks.same_device("advantage", advantage, "logprob", logprob)
