"""The gradient of one direction's objective, in micro-batches bounded by their tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch

from suder import ranks
from suder.method.blocks import Block
from suder.method.objectives import AllPairs, Trained, objective_loss, trained_candidates
from suder.method.passes import cu_seqlens_of, hidden_of, kl_between, model_input, tokens_read
from suder.method.rollouts import Rollouts
from suder.method.selection import Selection
from suder.method.shares import alone, own_blocks
from suder.method.token_weight import critical, siblings
from suder.models.base import Condition, UnifiedModel
from suder.settings.config import TrainConfig
from suder.settings.objective import PAIRED, looks_at_start, preference_of
from suder_ext import LogprobStats, linear_logprob, linear_logprob_stats, sequence_reduce
from suder_ext.preference_options import SORTING


@dataclass
class Sums:
    """Totals over a round's trained tokens, for the log."""

    loss: float = 0.0
    tokens: int = 0
    sequences: int = 0
    kl: float = 0.0
    entropy: float = 0.0
    gap: float = 0.0  # |log p trained - log p drawn from|: 0 where both are the same policy
    # The first step's log p, by blocks; of this process's share, where the rest is of all.
    old: list[torch.Tensor] = field(default_factory=list)

    def add_up(self) -> None:
        """From this process's share to that of all."""
        own = [self.loss, self.tokens, self.kl, self.entropy, self.gap]
        self.loss, tokens, self.kl, self.entropy, self.gap = ranks.total(own)
        self.tokens = int(tokens)

    def log(self, direction: str) -> dict[str, float]:
        tokens = max(1, self.tokens)
        return {
            f"loss/{direction}": self.loss,
            f"kl/{direction}": self.kl / tokens,
            f"entropy/{direction}": self.entropy / tokens,
            f"sampler_gap/{direction}": self.gap / tokens,
            f"trained/{direction}": float(self.sequences),
        }


def add_gradient(
    policy: UnifiedModel,
    start: UnifiedModel,
    rollouts: Rollouts,
    selection: Selection,
    condition: Condition,
    config: TrainConfig,
    first: Sums | None = None,
    tokens: int | None = None,
) -> Sums:
    """Adds the gradient of this direction's mean loss to the parameters' `.grad`.

    Samples are fresh at the first step, so the policy's own log-probabilities stand in for the old
    ones (ratio exactly 1, no second forward); later steps on the same samples take them from
    `first`, the sums that the first step returned. The start model runs only on trained tokens.
    Rollouts of files (`data.rollouts`) are no fresh samples: GRPO's old log-probabilities are those
    that they were drawn at, and the clip bounds what a policy far from those learns of them.

    Of several processes each takes whole groups, its share of those that are trained, and divides
    by the number of sequences or pairs of all: the sum of their gradients is that of one process.

    Args:
        tokens: of a forward, at most; None: as many as the config says.
    """
    objective = config.objective
    trained = trained_candidates(objective.name, selection, rollouts.group)
    sums = Sums(sequences=int(trained.valid.sum()))
    units = sums.sequences // 2 if objective.name in PAIRED else sums.sequences
    lengths = rollouts.cu_seqlens.diff()
    drawn = rollouts.logprob.split(lengths.tolist())
    limit = tokens or config.optimizer.tokens_per_batch
    tokens_of = partial(tokens_read, policy, rollouts, config)
    together = ranks.count() > 1 and any(map(ranks.divided, policy.parameters()))
    here = ranks.share(len(trained.rows))
    parts = own_blocks(trained, tokens_of, config, limit, together)
    off_policy = objective.name == "grpo" and config.data.rollouts is not None
    earlier = None if first is None or not first.old else torch.cat(first.old)
    models = policy, start
    pairs = None
    if objective.name in PAIRED:
        pairs = _all_pairs(models, rollouts, condition, trained, parts, config, together)
    opposed = _opposed(policy, rollouts, selection, config)
    first_pair, first_token = here.start, 0
    with alone(together):
        for block, idle in parts:
            chosen = block.candidates()
            stats, start_logprob, kl, target = _logprobs(models, rollouts, condition, block, config)
            logprob = stats.logprob
            if idle:
                (0.0 * logprob.sum()).backward()
                continue
            now = slice(first_token, first_token + logprob.numel())
            drawn_logprob = torch.cat([drawn[i] for i in chosen.tolist()])
            old = logprob.detach() if earlier is None else earlier[now]
            if off_policy:
                old = drawn_logprob.to(logprob.device)
            loss = objective_loss(
                objective,
                logprob,
                target,
                cu_seqlens_of(lengths[chosen], logprob.device),
                selection.advantage[chosen].to(logprob.device),
                old,
                start_logprob,
                pairs,
                first_pair,
                kl,
                _token_weight(rollouts, config, stats, opposed, chosen),
            )
            (loss / units).backward()
            first_pair, first_token = first_pair + block.rows.numel(), now.stop
            sums.old.append(old)
            _count(sums, loss.detach() / units, stats, start_logprob, kl, drawn_logprob)
    sums.add_up()
    return sums


def _opposed(
    policy: UnifiedModel, rollouts: Rollouts, selection: Selection, config: TrainConfig
) -> torch.Tensor | None:
    """Weights `[B, I]` that look at all siblings, which a block may not hold; None: others."""
    if rollouts.direction != "generation" or config.objective.token_weight != "siblings":
        return None
    shape = len(rollouts.inputs), rollouts.group
    device = policy.device
    return siblings(
        rollouts.pictures().view(*shape, -1).to(device),
        selection.advantage.view(shape).to(device),
        selection.valid.view(shape).to(device),
        policy.codebook.detach(),
    )


def _token_weight(
    rollouts: Rollouts,
    config: TrainConfig,
    stats: LogprobStats,
    opposed: torch.Tensor | None,
    chosen: torch.Tensor,
) -> torch.Tensor | None:
    """Of a block's tokens, float32 `[T]`; None: all alike, as in texts."""
    if opposed is not None:
        return opposed[chosen.to(opposed.device)].flatten()
    if rollouts.direction == "generation" and config.objective.token_weight == "critical":
        return critical(stats.entropy.detach().view(len(chosen), -1)).flatten()
    return None


Models = tuple[UnifiedModel, UnifiedModel]  # policy and start


def _logprobs(
    models: Models, rollouts: Rollouts, condition: Condition, block: Block, config: TrainConfig
) -> tuple[LogprobStats, torch.Tensor | None, torch.Tensor | None, torch.Tensor]:
    """Of a block's tokens: the policy's, the start's and the exact KL to it if the objective needs
    them, and the tokens.
    """
    objective, temperature = config.objective, config.sampling.temperature
    given = model_input(rollouts, condition, block, config)
    kept = block.valid.flatten().repeat_interleave(
        rollouts.cu_seqlens.diff()[block.index.flatten()]
    )
    hidden = hidden_of(models[0], given, kept.to(models[0].device))
    stats = linear_logprob_stats(
        hidden.hidden, hidden.weight, hidden.target, hidden.bias, temperature=temperature
    )
    looks = looks_at_start(objective)
    if not any(looks):
        return stats, None, None, hidden.target
    start_logprob = kl = None
    with torch.no_grad():
        frozen = hidden_of(models[1], given, kept.to(models[0].device))
        if looks.at_tokens:
            start_logprob = linear_logprob(
                frozen.hidden, frozen.weight, frozen.target, frozen.bias, temperature=temperature
            )
    if looks.at_all:
        kl = kl_between(hidden, frozen, temperature)
    return stats, start_logprob, kl, hidden.target


@torch.no_grad()
def _all_pairs(
    models: Models,
    rollouts: Rollouts,
    condition: Condition,
    trained: Trained,
    parts: list[tuple[Block, bool]],
    config: TrainConfig,
    together: bool,
) -> AllPairs:
    """What a loss may have to know of all pairs beside its block's.

    A loss that sorts them has to know their log-probabilities before the first gradient: another
    forward of every block, where there is more than one.
    """
    lengths = rollouts.cu_seqlens.diff()
    length = lengths[trained.index.flatten()].to(models[0].device)
    nothing = torch.zeros(length.shape[0], device=length.device)
    preference = preference_of(config.objective)
    if preference is None or preference.loss_type not in SORTING:
        return AllPairs(length, nothing, nothing)
    if len(parts) < 2 and ranks.count() == 1:
        return AllPairs(length, nothing, nothing)
    policy, start = [nothing[:0]], [nothing[:0]]
    with alone(together):
        for block, idle in parts:
            stats, start_logprob, _, target = _logprobs(models, rollouts, condition, block, config)
            if idle:
                continue
            packed = target, cu_seqlens_of(lengths[block.candidates()], target.device)
            policy.append(sequence_reduce(stats.logprob, *packed, mean=False)[0])
            if start_logprob is not None:
                start.append(sequence_reduce(start_logprob, *packed, mean=False)[0])
    found = [torch.cat(policy), torch.cat(start)]
    everyone = zip(*ranks.gather([one.cpu() for one in found]), strict=True)
    policy_of_all, start_of_all = (torch.cat(one).to(length.device) for one in everyone)
    return AllPairs(length, policy_of_all, start_of_all if len(start_of_all) else nothing)


@torch.no_grad()
def _count(
    sums: Sums,
    loss: torch.Tensor,
    stats: LogprobStats,
    start: torch.Tensor | None,
    kl: torch.Tensor | None,
    drawn: torch.Tensor,
) -> None:
    sums.loss += float(loss)
    sums.tokens += stats.logprob.numel()
    sums.entropy += float(stats.entropy.sum())
    sums.gap += float((stats.logprob.cpu() - drawn).abs().sum())
    if kl is not None:
        sums.kl += float(kl.double().sum())
    elif start is not None:
        delta = (start - stats.logprob).double()  # exp(delta) - 1 - delta nearly cancels
        sums.kl += float((delta.expm1() - delta).sum())
