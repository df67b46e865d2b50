"""Packed sequences: their log-likelihoods, the dual self-reward, and advantages inside groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from suder_ext import _checks, _ops, reference
from suder_ext._load import has_kernel
from suder_ext._ops import eager
from suder_ext.functional.logprobs import linear_logprob
from suder_ext.functional.padded import packed
from suder_ext.types import Normalization, Rewards, SequenceReduction

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


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
    group: ProcessGroup | None = None,
) -> Tensor:
    """Log-likelihood of each packed sequence; with "mean", the dual self-reward itself.

    `mean over the scored tokens t of sequence b of log p(target[t])`, the length-normalised
    likelihood that SUDER (arXiv 2506.07963) rewards with; "sum" is the sequence log-probability of
    DPO. Scored are the tokens whose target is not `ignore_index`.

    Args:
        hidden: `[T, D]`, the hidden states of all sequences one after another.
        weight, bias, ignore_index, temperature, softcap, group: as in `linear_logprob`.
        target: an integer dtype, `[T]`.
        cu_seqlens: int64 or int32 `[B + 1]`, sorted from 0 to T; sequence b is the tokens from
            `cu_seqlens[b]` up to `cu_seqlens[b + 1]`. Or a mask `[B, T]` of a padded batch (bool or
            integer, 0 where there is no token), beside hidden `[B, T, D]` and target `[B, T]`:
            `pack_padded`.
        reduction: "mean" or "sum".

    Returns:
        float32 `[B]`, differentiable in hidden, weight and bias. A sequence with no scored token
        gives NaN, never 0 (0 would be the best reward there is), and no gradient.

    Raises:
        TypeError, ValueError, IndexError: as `linear_logprob`; ValueError also for a cu_seqlens
            that is not sorted from 0 to T.
    """
    cu_seqlens, hidden, target = packed(cu_seqlens, hidden=hidden, target=target)
    _checks.choice("reduction", reduction, ("mean", "sum"))
    check_packed("hidden", hidden, target, cu_seqlens)
    per_token = linear_logprob(
        hidden,
        weight,
        target,
        bias,
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap,
        group=group,
    )
    return reduced(per_token, target, cu_seqlens, reduction == "mean", ignore_index)[0]


def sequence_reduce(
    logprob: Tensor,
    target: Tensor,
    cu_seqlens: Tensor,
    *,
    mean: bool,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    """Sum or mean of the scored tokens of each packed sequence, and how many they are.

    Args:
        logprob: float `[T]`.
        target: an integer dtype, `[T]`; tokens with `target == ignore_index` are not scored.
        cu_seqlens: int64 or int32 `[B + 1]`, sorted from 0 to T.
        mean: divide by the number of scored tokens.

    Returns:
        value float32 `[B]`, NaN where no token is scored, differentiable in logprob; count int64
        `[B]`.

    Raises:
        TypeError, ValueError: a dtype, shape, device or cu_seqlens that is not taken.
    """
    cu_seqlens, logprob, target = packed(cu_seqlens, logprob=logprob, target=target)
    if _reduces_directly(logprob, target, cu_seqlens):
        arguments = logprob, target, cu_seqlens, mean, ignore_index
        found: tuple[Tensor, Tensor] = eager.call("sequence_reduce", *arguments)
        return found
    _checks.tensor("logprob", logprob, 1, _checks.FLOATS)
    _checks.tensor("target", target, 1, _checks.CLASSES)
    check_packed("logprob", logprob, target, cu_seqlens)
    return reduced(logprob, target, cu_seqlens, mean, ignore_index)


def group_advantage(
    reward: Tensor, group_size: int, normalize: Normalization | None = "std"
) -> tuple[Tensor, Tensor, Tensor]:
    """Advantage of each candidate inside its group, and each group's best and worst.

    The B candidates are `G = B / group_size` groups in order. "std" is
    `(r - mean) / (std + 1e-4)` with the unbiased standard deviation (GRPO, arXiv 2402.03300,
    section 4.1.2; constant as in TRL), 0 in a group of one; "mean" is `r - mean` (Dr.GRPO,
    arXiv 2503.20783); None keeps the reward. Rewards that are not finite are left out of their
    group's statistics, get advantage 0 and are never best or worst. No gradient.

    Args:
        reward: float `[B]`.
        group_size: at least 1, divides B.
        normalize: "std", "mean" or None.

    Returns:
        advantage float32 `[B]`; best and worst int64 `[G]`, indices into reward, the first of
        equals, -1 where no reward of the group is finite.

    Raises:
        TypeError, ValueError: an argument that is not taken.
    """
    direct = eager.ready("group_advantage", reward) and eager.shape(1, eager.FLOAT32, reward)
    if not direct:
        _checks.tensor("reward", reward, 1, _checks.FLOATS)
    _checks.choice("normalize", normalize, ("std", "mean", None))
    _divides(group_size, reward.shape[0])
    found: tuple[Tensor, Tensor, Tensor]
    if direct:
        found = eager.call("group_advantage", reward, group_size, normalize or "none")
    elif has_kernel("group_advantage", reward):
        found = _ops.group_advantage(reward.detach().float(), group_size, normalize or "none")
    else:
        found = reference.group_advantage(reward, group_size, normalize)
    return found


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
    group: ProcessGroup | None = None,
) -> Rewards:
    """Dual self-rewards of B candidates in groups, with advantages and extremes; no gradient.

    `linear_sequence_logprob` with reduction "mean" (SUDER, arXiv 2506.07963: the likelihood that
    the model, run in the opposite direction, gives the input back), then `group_advantage`.

    Args:
        hidden, weight, target, cu_seqlens, bias, ignore_index, temperature, softcap, group: as in
            `linear_sequence_logprob`; the B sequences are the candidates.
        group_size: at least 1, divides B; candidates of one input are consecutive.
        normalize: "std", "mean" or None, as in `group_advantage`.

    Returns:
        Rewards(reward float32 `[B]`, advantage float32 `[B]`, best int64 `[G]`, worst int64 `[G]`).

    Raises:
        TypeError, ValueError, IndexError: as `linear_sequence_logprob` and `group_advantage`.
    """
    cu_seqlens, hidden, target = packed(cu_seqlens, hidden=hidden, target=target)
    _checks.cu_seqlens(cu_seqlens, "hidden", hidden)
    _divides(group_size, cu_seqlens.shape[0] - 1)
    reward = linear_sequence_logprob(
        hidden,
        weight,
        target,
        cu_seqlens,
        bias,
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap,
        group=group,
    )
    reward = reward.detach()  # a tangent, too, ends here
    return Rewards(reward, *group_advantage(reward, group_size, normalize))


def check_packed(name: str, values: Tensor, target: Tensor, cu_seqlens: Tensor) -> None:
    """`values` and `target` are packed along one dimension of T tokens, cut by cu_seqlens."""
    _checks.cu_seqlens(cu_seqlens, name, values)
    if target.dim() != 1:
        raise ValueError(f"target takes shape [T] (packed sequences), got {list(target.shape)}")
    _checks.shape("target", target, values.shape[:1], f"the T of {name}")
    _checks.same_device("target", target, name, values)


def _divides(group_size: int, candidates: int) -> None:
    if group_size < 1 or candidates % group_size:
        raise ValueError(
            f"group_size takes a number of at least 1 that divides the number of candidates "
            f"({candidates}), got {group_size}"
        )


def _reduces_directly(logprob: Tensor, target: Tensor, cu_seqlens: Tensor) -> bool:
    """Whether the CPU kernel can be called as it is: then no check below can fail."""
    return (
        eager.ready("sequence_reduce", logprob, target, cu_seqlens)
        and (tokens := eager.shape(1, eager.FLOAT32, logprob)) is not None
        and eager.shape(1, eager.INT64, target) == tokens
        and eager.shape(1, eager.INT64, cu_seqlens) is not None
    )


def reduced(
    per_token: Tensor, target: Tensor, cu_seqlens: Tensor, mean: bool, ignore_index: int
) -> tuple[Tensor, Tensor]:
    if not has_kernel("sequence_reduce", per_token):
        _checks.cu_seqlens_values(cu_seqlens, per_token.shape[0])
        return reference.sequence_reduce(
            per_token, target, cu_seqlens, mean=mean, ignore_index=ignore_index
        )
    found: tuple[Tensor, Tensor] = _ops.sequence_reduce(
        per_token.float(), target.long(), cu_seqlens.long(), mean, ignore_index
    )
    return found
