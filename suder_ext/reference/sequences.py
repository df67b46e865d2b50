"""Sequences and groups of them: reductions, rewards and advantages in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext.reference.logprobs import linear_logprob, widen
from suder_ext.types import Normalization, Rewards, SequenceReduction

STD_EPSILON = 1e-4  # added to a group's standard deviation, as in TRL's GRPO


def segment_ids(cu_seqlens: Tensor, tokens: int) -> Tensor:
    """`[tokens]` int64: the sequence each token belongs to."""
    lengths = cu_seqlens.diff().long()
    ids = torch.arange(lengths.numel(), device=cu_seqlens.device)
    return torch.repeat_interleave(ids, lengths, output_size=tokens)


def per_sequence_sum(value: Tensor, ids: Tensor, sequences: int) -> Tensor:
    """`[sequences]` sums of `[tokens]` values, accumulated in float64: thousands of terms."""
    total = torch.zeros(sequences, dtype=torch.float64, device=value.device)
    return total.index_add(0, ids, value.double()).to(value.dtype)


def sequence_reduce(
    logprob: Tensor, target: Tensor, cu_seqlens: Tensor, *, mean: bool, ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """Sum or mean of each sequence's scored tokens.

    Args:
        logprob: float `[T]`, per-token log-probabilities.
        target: int64 `[T]`; tokens equal to `ignore_index` are not scored.
        cu_seqlens: int32 or int64 `[B + 1]`, from 0 to T.

    Returns:
        value `[B]`, NaN where a sequence has no scored token, and count int64 `[B]`.
    """
    (wide,) = widen(logprob)
    assert wide is not None
    ids = segment_ids(cu_seqlens, logprob.numel())
    scored = target.long() != ignore_index
    sequences = cu_seqlens.numel() - 1
    count = torch.zeros(sequences, dtype=torch.int64, device=logprob.device)
    count = count.index_add(0, ids, scored.long())
    total = per_sequence_sum(wide.masked_fill(~scored, 0.0), ids, sequences)
    value = total / count.clamp(min=1) if mean else total
    return value.masked_fill(count == 0, float("nan")), count


def linear_sequence_logprob(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    cu_seqlens: Tensor,
    bias: Tensor | None = None,
    *,
    reduction: SequenceReduction = "mean",
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """See `suder_ext.linear_sequence_logprob`."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}; it must be 'mean' or 'sum'")
    per_token = linear_logprob(
        hidden,
        weight,
        target,
        bias,
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap,
    )
    mean = reduction == "mean"
    return sequence_reduce(per_token, target, cu_seqlens, mean=mean, ignore_index=ignore_index)[0]


def group_advantage(
    reward: Tensor, group_size: int, normalize: Normalization | None = "std"
) -> tuple[Tensor, Tensor, Tensor]:
    """Advantage of each candidate in its group of `group_size`, and each group's extremes.

    "std": `(r - mean) / (std + 1e-4)` with the unbiased standard deviation, 0 in a group of one
    (GRPO, arXiv 2402.03300, section 4.1.2; constants as in TRL). "mean": `r - mean` (Dr.GRPO,
    arXiv 2503.20783). None: the reward as it is. Rewards that are not finite are left out
    everywhere and get 0.

    Returns:
        advantage `[B]`; best and worst int64 `[B / group_size]`, indices into `reward`, the first
        of equals, -1 where no reward of the group is finite.
    """
    if normalize not in ("std", "mean", None):
        raise ValueError(f"normalize is {normalize!r}; it must be 'std', 'mean' or None")
    if group_size < 1 or reward.numel() % group_size:
        raise ValueError(
            f"group_size is {group_size}; it must be at least 1 and divide the number of "
            f"rewards, {reward.numel()}"
        )
    (wide,) = widen(reward.detach())
    assert wide is not None
    group = wide.double().reshape(-1, group_size)  # rewards of a group are close to each other
    missing = ~group.isfinite()
    group = group.masked_fill(missing, torch.nan)
    count = (~missing).sum(1, keepdim=True)
    advantage = group
    if normalize is not None:
        advantage = group - group.nansum(1, keepdim=True) / count
    if normalize == "std":
        variance = (advantage**2).nansum(1, keepdim=True) / (count - 1).clamp(min=1)
        advantage = advantage / (variance.sqrt() + STD_EPSILON)
    advantage = advantage.masked_fill(missing, 0.0).reshape(-1).to(wide.dtype)

    return advantage, _first_extreme(group, missing, 1), _first_extreme(group, missing, -1)


def _first_extreme(group: Tensor, missing: Tensor, sign: int) -> Tensor:
    """Index of the first of each row's highest (sign 1) or lowest (sign -1); -1 in an empty row."""
    if not group.numel():
        return torch.zeros(group.shape[0], dtype=torch.int64, device=group.device)
    signed = (group * sign).masked_fill(missing, -torch.inf)
    hit = (signed == signed.amax(1, keepdim=True)) & ~missing
    first = torch.arange(group.shape[0], device=group.device) * group.shape[1]
    return (first + hit.long().argmax(1)).masked_fill(missing.all(1), -1)


@torch.no_grad()
def dual_reward(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    cu_seqlens: Tensor,
    bias: Tensor | None = None,
    *,
    group_size: int,
    normalize: Normalization | None = "std",
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Rewards:
    """See `suder_ext.dual_reward`."""
    reward = linear_sequence_logprob(
        hidden,
        weight,
        target,
        cu_seqlens,
        bias,
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap,
    )
    return Rewards(reward, *group_advantage(reward, group_size, normalize))
