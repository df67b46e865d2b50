"""The four objectives, as functions of per-token log-probabilities and nothing else.

Every objective sees the same packed sequences `logprob[T]`, `cu_seqlens[B + 1]`; what the
sequences are differs (`trained_candidates`): all candidates (grpo), best and worst of each group
in turn (simpo, dpo), or the best alone (expert).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from suder.method.selection import Selection
from suder.settings.learning import ObjectiveSection
from suder.settings.objective import PAIRED, Preference, preference_of
from suder_ext import policy_loss, preference_loss, sequence_reduce
from suder_ext.preference_options import SORTING, TAKES_LENGTH


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

    def take(self, groups: range) -> Trained:
        """Some groups in a row."""
        here = slice(groups.start, groups.stop)
        return Trained(self.rows[here], self.index[here], self.valid[here])


@dataclass(frozen=True)
class AllPairs:
    """What is known of all pairs of a batch while one block of them is at work.

    Some losses look at more than their own pair: at the batch's mean length, or, where they sort,
    at every pair's log-probability.

    Attributes:
        length: int64 `[2P]`, tokens of the best and the worst of each pair in turn.
        policy, start: float32 `[2P]`, their log-probabilities; only losses that sort look at them.
    """

    length: torch.Tensor
    policy: torch.Tensor
    start: torch.Tensor


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
    pairs: AllPairs | None = None,
    first_pair: int = 0,
    kl: torch.Tensor | None = None,
    token_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss summed over sequences (over pairs for simpo and dpo), KL to the start included.

    - grpo: clipped policy gradient with length-normalised sequences, arXiv 2402.03300 eq. 3.
    - simpo: -log sigmoid(beta * (mean logp of best - mean logp of worst) - margin),
      arXiv 2405.14734 eq. 6, with an absolute margin.
    - dpo: arXiv 2305.18290 eq. 7 with the start model as reference, or another `loss_type`.
    - expert: -mean logp of the best, i.e. fine-tuning on the best of the group.

    The KL to the start is that of each position over the whole vocabulary, `kl`, averaged over a
    sequence. Without it, it is k3 = exp(q - p) - 1 - (q - p) of the token (q the start's
    log-probability, http://joschu.net/blog/kl-approx.html), which a token that has become
    improbable makes as large as one likes. For the objectives other than grpo the positions are
    those of the trained candidates only, a biased sample of the policy, but a pull towards the
    start all the same.

    Args:
        logprob, old_logprob, start_logprob: float32 `[T]`; only `logprob` takes a gradient.
        target: int64 `[T]`, the tokens.
        cu_seqlens: int64 `[B + 1]`, none of the sequences empty.
        advantage: float32 `[B]`, used by grpo.
        start_logprob: needed by dpo, and by k3 where `settings.kl` is above 0.
        pairs, first_pair: where the sequences are only a block of a batch's pairs: all of them, and
            the place of the block's first. Values and gradients of the blocks then add up to those
            of the batch, whatever the loss.
        kl: float32 `[T]`, takes a gradient; None: k3.
        token_weight: float32 `[T]`, times each token's policy gradient (grpo); None: all alike.

    Returns:
        Scalar float32. The sum, so that losses of parts of a batch add up.
    """
    sequences = cu_seqlens.numel() - 1
    total = logprob.new_zeros(())
    preference = preference_of(settings)
    if preference is not None:
        policy, length = sequence_reduce(logprob, target, cu_seqlens, mean=False)
        start = None
        if preference.with_reference:
            if start_logprob is None:
                raise ValueError("dpo needs the start model's log-probabilities")
            start = sequence_reduce(start_logprob, target, cu_seqlens, mean=False)[0]
        total = total + _preference(preference, policy, length, start, pairs, first_pair)
    elif settings.name == "expert":
        total = total - sequence_reduce(logprob, target, cu_seqlens, mean=True)[0].sum()
    sampled = settings.kl if kl is None else 0.0
    weight = 0.5 if settings.name in PAIRED else 1.0  # a pair holds two sequences
    if kl is not None:
        mean = sequence_reduce(kl, target, cu_seqlens, mean=True)[0]
        total = total + settings.kl * mean.sum() * weight
    if settings.name == "grpo" or sampled > 0:
        policy = policy_loss(
            logprob,
            old_logprob,
            advantage if settings.name == "grpo" else torch.zeros_like(advantage),
            cu_seqlens,
            start_logprob if sampled > 0 else None,
            clip=settings.clip,
            kl_coef=sampled,
            token_weight=token_weight,
            reduction="sequence",
        )
        total = total + policy * sequences * weight
    return total


def _preference(
    preference: Preference,
    policy: torch.Tensor,
    length: torch.Tensor,
    start: torch.Tensor | None,
    pairs: AllPairs | None,
    first_pair: int,
) -> torch.Tensor:
    """The block's pairs' loss, among all of them."""
    here = slice(first_pair, first_pair + policy.shape[0] // 2)
    if pairs is not None:
        policy = _in_place(pairs.policy, policy, here)
        start = None if start is None else _in_place(pairs.start, start, here)
        length = pairs.length
    loss_type, takes_length = preference.loss_type, preference.loss_type in TAKES_LENGTH
    loss = preference_loss(
        policy[0::2],
        policy[1::2],
        None if start is None else start[0::2],
        None if start is None else start[1::2],
        loss_type=loss_type,
        beta=preference.beta,
        margin=preference.margin,
        chosen_length=length[0::2] if takes_length else None,
        rejected_length=length[1::2] if takes_length else None,
    ).loss
    own = loss[here].sum()
    if loss_type not in SORTING:
        return own
    # The block's pairs are compared with in the others' losses, too: a gradient, but no value.
    return loss.sum() - (loss.sum() - own).detach()


def _in_place(everywhere: torch.Tensor, block: torch.Tensor, here: slice) -> torch.Tensor:
    return torch.cat([everywhere[: 2 * here.start], block, everywhere[2 * here.stop :]])
