"""Policy-gradient losses in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext.reference.logprobs import widen
from suder_ext.reference.sequences import per_sequence_sum, segment_ids
from suder_ext.types import PolicyLevel, PolicyReduction

MAX_LOG_RATIO = 700.0


def check_policy_options(
    *,
    clip: float,
    clip_high: float | None,
    kl_coef: float,
    has_reference: bool,
    reduction: str,
    level: str,
    max_length: int | None,
) -> None:
    """Raise ValueError, naming the argument, if the options make no loss or one is not used."""
    if not 0 <= clip < 1:
        raise ValueError(f"clip is {clip}; it must be in [0, 1)")
    if clip_high is not None and not clip_high >= 0:
        raise ValueError(f"clip_high is {clip_high}; it must be at least 0")
    if kl_coef != 0 and not has_reference:
        raise ValueError(f"ref_logprob is None; kl_coef={kl_coef} needs it, float [T]")
    if kl_coef == 0 and has_reference:
        raise ValueError(
            "ref_logprob is given; kl_coef=0 does not use it, so it must be None (give a kl_coef?)"
        )
    if reduction not in ("sequence", "token", "constant"):
        raise ValueError(
            f"reduction is {reduction!r}; it must be 'sequence', 'token' or 'constant'"
        )
    if level not in ("token", "sequence"):
        raise ValueError(f"level is {level!r}; it must be 'token' or 'sequence'")
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length is {max_length}; it must be at least 1")
    if max_length is not None and reduction != "constant":
        raise ValueError(
            f"max_length is {max_length}; reduction={reduction!r} does not use it, so it must be "
            "None (reduction that does: 'constant')"
        )


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
    """See `suder_ext.policy_loss`."""
    check_policy_options(
        clip=clip,
        clip_high=clip_high,
        kl_coef=kl_coef,
        has_reference=ref_logprob is not None,
        reduction=reduction,
        level=level,
        max_length=max_length,
    )
    wide = widen(logprob, old_logprob, advantage, ref_logprob)
    assert wide[0] is not None
    dtype = wide[0].dtype
    # As the kernels do: old and new log-probabilities nearly cancel.
    new, old, wide_advantage, ref = (None if x is None else x.double() for x in wide)
    assert new is not None
    assert old is not None
    assert wide_advantage is not None
    ids = segment_ids(cu_seqlens, new.numel())
    length = cu_seqlens.diff().to(new.dtype).clamp(min=1)

    sequences = wide_advantage.numel()

    log_ratio = new - old
    if level == "sequence":
        log_ratio = (per_sequence_sum(log_ratio, ids, sequences) / length)[ids]
    # A ratio that is too much for float32 stays finite: times an advantage of 0 it is 0.
    excess = (log_ratio - MAX_LOG_RATIO).clamp(min=0).detach()
    ratio = (log_ratio - excess).exp()
    clipped = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    per_token = -torch.min(ratio * wide_advantage[ids], clipped * wide_advantage[ids])
    if kl_coef != 0:
        assert ref is not None
        per_token = per_token + kl_coef * _rest_of_exp(ref - new)

    if reduction == "sequence":
        loss = (per_sequence_sum(per_token, ids, sequences) / length).sum() / max(sequences, 1)
    elif reduction == "token":
        loss = per_token.sum() / max(new.numel(), 1)
    else:
        # On the device: reading the longest length back would synchronise.
        longest = length.max() if max_length is None and sequences else max_length or 1
        loss = per_token.sum() / (max(sequences, 1) * longest)
    return loss.to(dtype)


def _rest_of_exp(d: Tensor) -> Tensor:
    """exp(d) - 1 - d, the KL estimate k3, which nearly cancels where d is small."""
    near = d.abs() < 1e-5
    small, other = d.where(near, 0.0), d.where(~near, 1.0)
    return torch.where(near, small**2 * (0.5 + small / 6), other.expm1() - other)
