"""The four objectives, as functions of per-token log-probabilities and nothing else.

Every objective sees the same packed sequences `logprob[T]`, `cu_seqlens[B + 1]`; what the
sequences are differs (`trained_candidates`): all candidates (grpo), best and worst of each group
in turn (simpo, dpo), or the best alone (expert).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from suder.method.selection import Selection
from suder.settings.config import ObjectiveSection
from suder_ext import policy_loss, preference_loss, sequence_reduce
from suder_ext.types import LossType

BETA = {"simpo": 5.0, "dpo": 0.1}
LOSS_TYPE: dict[str, LossType] = {"simpo": "simpo", "dpo": "sigmoid"}
PAIRED = ("simpo", "dpo")


@dataclass(frozen=True)
class Trained:
    """Candidates an objective trains on.

    Attributes:
        rows: int64 `[R]`, the groups (inputs) that take part.
        index: int64 `[R, g]`, candidates of each of them, in the order the objective wants.
        valid: bool `[R, g]`, False for candidates without a reward, which are left out.
    """

    rows: torch.Tensor
    index: torch.Tensor
    valid: torch.Tensor


def trained_candidates(objective: str, selection: Selection, group: int) -> Trained:
    """Which candidates take part: groups that say nothing (no valid pair) are left out."""
    if objective == "grpo":
        valid = selection.valid.view(-1, group)
        rows = valid.any(1).nonzero().flatten()
        index = rows[:, None] * group + torch.arange(group)
        return Trained(rows, index, valid[rows])
    rows = selection.paired.nonzero().flatten()
    columns = [selection.best[rows]]
    if objective in PAIRED:
        columns.append(selection.worst[rows])
    index = torch.stack(columns, 1)
    return Trained(rows, index, torch.ones_like(index, dtype=torch.bool))


def objective_loss(
    settings: ObjectiveSection,
    logprob: torch.Tensor,
    target: torch.Tensor,
    cu_seqlens: torch.Tensor,
    advantage: torch.Tensor,
    old_logprob: torch.Tensor,
    start_logprob: torch.Tensor | None,
) -> torch.Tensor:
    """The loss summed over sequences (over pairs for simpo and dpo), KL to the start included.

    - grpo: clipped policy gradient with length-normalised sequences, arXiv 2402.03300 eq. 3.
    - simpo: -log sigmoid(beta * (mean logp of best - mean logp of worst) - margin),
      arXiv 2405.14734 eq. 6, with an absolute margin.
    - dpo: arXiv 2305.18290 eq. 7 with the start model as reference, or another `loss_type`.
    - expert: -mean logp of the best, i.e. fine-tuning on the best of the group.

    The KL is k3 = exp(q - p) - 1 - (q - p) per trained token (q the start's log-probability),
    averaged over a sequence; for the objectives other than grpo its tokens are the trained ones
    only, a biased sample of the policy, but a pull towards the start all the same.

    Args:
        logprob, old_logprob, start_logprob: float32 `[T]`; only `logprob` takes a gradient.
        target: int64 `[T]`, the tokens.
        cu_seqlens: int64 `[B + 1]`, none of the sequences empty.
        advantage: float32 `[B]`, used by grpo.
        start_logprob: needed by dpo and where `settings.kl` is above 0.

    Returns:
        Scalar float32. The sum, so that losses of parts of a batch add up.
    """
    sequences = cu_seqlens.numel() - 1
    total = logprob.new_zeros(())
    if settings.name in PAIRED:
        total = total + _preference(settings, logprob, target, cu_seqlens, start_logprob).sum()
    elif settings.name == "expert":
        total = total - sequence_reduce(logprob, target, cu_seqlens, mean=True)[0].sum()
    if settings.name == "grpo" or settings.kl > 0:
        policy = policy_loss(
            logprob,
            old_logprob,
            advantage if settings.name == "grpo" else torch.zeros_like(advantage),
            cu_seqlens,
            start_logprob if settings.kl > 0 else None,
            clip=settings.clip,
            kl_coef=settings.kl,
            reduction="sequence",
        )
        weight = 0.5 if settings.name in PAIRED else 1.0  # a pair holds two sequences
        total = total + policy * sequences * weight
    return total


def _preference(
    settings: ObjectiveSection,
    logprob: torch.Tensor,
    target: torch.Tensor,
    cu_seqlens: torch.Tensor,
    start_logprob: torch.Tensor | None,
) -> torch.Tensor:
    policy, lengths = sequence_reduce(logprob, target, cu_seqlens, mean=False)
    reference: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
    if settings.name == "dpo":
        if start_logprob is None:
            raise ValueError("dpo needs the start model's log-probabilities")
        start = sequence_reduce(start_logprob, target, cu_seqlens, mean=False)[0]
        reference = (start[0::2], start[1::2])
    return preference_loss(
        policy[0::2],
        policy[1::2],
        *reference,
        loss_type=settings.loss_type or LOSS_TYPE[settings.name],
        beta=settings.beta or BETA[settings.name],
        margin=settings.margin if settings.name == "simpo" else 0.0,
        chosen_length=lengths[0::2],
        rejected_length=lengths[1::2],
    ).loss
