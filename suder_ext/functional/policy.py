"""Policy-gradient losses over packed sequences."""

from __future__ import annotations

from torch import Tensor

from suder_ext import _checks, _ops, reference
from suder_ext._load import has_kernel
from suder_ext._ops import eager
from suder_ext.reference.policy import check_policy_options
from suder_ext.types import PolicyLevel, PolicyReduction


def policy_loss(
    logprob: Tensor,
    old_logprob: Tensor,
    advantage: Tensor,
    cu_seqlens: Tensor,
    ref_logprob: Tensor | None = None,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    kl_coef: float = 0.0,
    reduction: PolicyReduction = "sequence",
    level: PolicyLevel = "token",
    max_length: int | None = None,
) -> Tensor:
    """Clipped policy-gradient loss: GRPO, DAPO, Dr.GRPO, GSPO.

    With `ratio = exp(logprob - old_logprob)`, a token of sequence b costs
    `-min(ratio * A_b, clamp(ratio, 1 - clip, 1 + clip_high) * A_b)` plus
    `kl_coef * (exp(ref - logprob) - (ref - logprob) - 1)` (GRPO, arXiv 2402.03300, eqs. 3 and 4;
    the two clips are DAPO's, arXiv 2503.14476, eq. 8). `level="sequence"` takes one ratio a
    sequence, `exp(mean over its tokens of logprob - old_logprob)` (GSPO, arXiv 2507.18071, eq. 7).

    Reductions: "sequence" averages over each sequence's tokens, then over sequences (GRPO); "token"
    averages over all tokens (DAPO); "constant" divides the sum by `B * max_length` (Dr.GRPO,
    arXiv 2503.20783). An empty sequence costs nothing, and still counts in the B of "sequence" and
    "constant": a choice, which is TRL's.

    Args:
        logprob: float `[T]`, of the policy being trained.
        old_logprob: float `[T]`, of the policy that drew the tokens.
        advantage: float `[B]`.
        cu_seqlens: int64 or int32 `[B + 1]`, sorted from 0 to T. Pack scored tokens only.
        ref_logprob: float `[T]`, of the reference policy; given if and only if kl_coef is not 0.
        clip: in `[0, 1)`.
        clip_high: at least 0; None takes `clip`.
        kl_coef: weight of the KL estimate.
        reduction: "sequence", "token" or "constant".
        level: "token" or "sequence".
        max_length: the constant of reduction "constant", taken by no other; None takes the longest
            sequence.

    Returns:
        float32 scalar (float64 if an input is), 0 for an empty batch, differentiable in logprob,
        old_logprob, ref_logprob and advantage.

    Raises:
        TypeError, ValueError: an argument that is not taken, naming it.
    """
    direct = _is_plain(logprob, old_logprob, advantage, cu_seqlens, ref_logprob)
    if not direct:
        _check(logprob, old_logprob, advantage, cu_seqlens, ref_logprob)
    check_policy_options(
        clip=clip,
        clip_high=clip_high,
        kl_coef=kl_coef,
        has_reference=ref_logprob is not None,
        reduction=reduction,
        level=level,
        max_length=max_length,
    )
    if not direct and not has_kernel("policy_loss", logprob, old_logprob, advantage, ref_logprob):
        _checks.cu_seqlens_values(cu_seqlens, logprob.shape[0])
        return reference.policy_loss(
            logprob,
            old_logprob,
            advantage,
            cu_seqlens,
            ref_logprob,
            clip=clip,
            clip_high=clip_high,
            kl_coef=kl_coef,
            reduction=reduction,
            level=level,
            max_length=max_length,
        )
    clips = clip, clip if clip_high is None else clip_high
    options = *clips, kl_coef, reduction, level, max_length or 0
    if direct:
        return eager.call(
            "policy_loss", logprob, old_logprob, ref_logprob, advantage, cu_seqlens, *options
        )[0]
    return _ops.policy_loss(
        logprob.float(),
        old_logprob.float(),
        None if ref_logprob is None else ref_logprob.float(),
        advantage.float(),
        cu_seqlens.long(),
        *options,
    )[0]


def _is_plain(
    logprob: Tensor,
    old_logprob: Tensor,
    advantage: Tensor,
    cu_seqlens: Tensor,
    ref_logprob: Tensor | None,
) -> bool:
    """Whether the CPU kernel can take the tensors as they are; then no `_check` can fail."""
    if not eager.ready("policy_loss", logprob, old_logprob, ref_logprob, advantage, cu_seqlens):
        return False
    if ref_logprob is None:
        ref_logprob = old_logprob
    offsets = eager.shape(1, eager.INT64, cu_seqlens)
    return (
        offsets is not None
        and eager.shape(1, eager.FLOAT32, logprob, old_logprob, ref_logprob) is not None
        and eager.shape(1, eager.FLOAT32, advantage) == (offsets[0] - 1,)
    )


def _check(
    logprob: Tensor,
    old_logprob: Tensor,
    advantage: Tensor,
    cu_seqlens: Tensor,
    ref_logprob: Tensor | None,
) -> None:
    _checks.tensor("logprob", logprob, 1, _checks.FLOATS)
    _checks.like("old_logprob", old_logprob, "logprob", logprob)
    if ref_logprob is not None:
        _checks.like("ref_logprob", ref_logprob, "logprob", logprob)
    _checks.cu_seqlens(cu_seqlens, "logprob", logprob)
    _checks.tensor("advantage", advantage, 1, _checks.FLOATS)
    _checks.shape("advantage", advantage, (cu_seqlens.shape[0] - 1,), "the B of cu_seqlens[B+1]")
    _checks.same_device("advantage", advantage, "logprob", logprob)
