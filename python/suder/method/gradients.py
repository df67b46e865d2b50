"""The gradient of one direction's objective, in micro-batches bounded by their tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from suder.method.objectives import PAIRED, Trained, objective_loss, trained_candidates
from suder.method.rollouts import Condition, Rollouts
from suder.method.selection import Selection
from suder.models.base import Direction, Hidden, UnifiedModel
from suder.settings.config import TrainConfig
from suder_ext import LogprobStats, linear_logprob, linear_logprob_stats

CONDITION_EXTRA = 8  # template tokens around a condition, roughly; only the batch's size uses it


@dataclass
class Sums:
    """Totals over a round's trained tokens, for the log."""

    loss: float = 0.0
    tokens: int = 0
    sequences: int = 0
    kl: float = 0.0
    entropy: float = 0.0
    gap: float = 0.0  # |log p trained - log p drawn from|: 0 where both are the same policy
    old: list[torch.Tensor] = field(default_factory=list)  # first step's log p, a block each

    def log(self, direction: str) -> dict[str, float]:
        tokens = max(1, self.tokens)
        return {
            f"loss/{direction}": self.loss,
            f"kl/{direction}": self.kl / tokens,
            f"entropy/{direction}": self.entropy / tokens,
            f"sampler_gap/{direction}": self.gap / tokens,
            f"trained/{direction}": float(self.sequences),
        }


@dataclass(frozen=True)
class Block:
    """A part of the candidates that goes through the model at once, `index[R, g]`."""

    rows: torch.Tensor
    index: torch.Tensor
    valid: torch.Tensor


def add_gradient(
    policy: UnifiedModel,
    start: UnifiedModel,
    rollouts: Rollouts,
    selection: Selection,
    condition: Condition,
    config: TrainConfig,
    first: Sums | None = None,
) -> Sums:
    """Adds the gradient of this direction's mean loss to the parameters' `.grad`.

    Samples are fresh at the first step, so the policy's own log-probabilities stand in for the old
    ones (ratio exactly 1, no second forward); later steps on the same samples take them from
    `first`, the sums that the first step returned. The start model runs only on trained tokens.
    """
    objective, temperature = config.objective, config.sampling.temperature
    trained = trained_candidates(objective.name, selection, rollouts.group)
    sums = Sums(sequences=int(trained.valid.sum()))
    units = sums.sequences // 2 if objective.name in PAIRED else sums.sequences
    lengths = rollouts.cu_seqlens.diff()
    drawn = rollouts.logprob.split(lengths.tolist())
    extra = _condition_tokens(policy, rollouts)
    for number, block in enumerate(blocks(trained, lengths + extra, config)):
        model_input = _forward_input(rollouts, condition, block, config)
        kept = block.valid.flatten()
        chosen = block.index.flatten()[kept]
        token_kept = kept.repeat_interleave(lengths[block.index.flatten()]).to(policy.device)
        hidden = _hidden_of_kept(policy, model_input, token_kept)
        stats = linear_logprob_stats(
            hidden.hidden, hidden.weight, hidden.target, hidden.bias, temperature=temperature
        )
        start_logprob = None
        if objective.kl > 0 or objective.name == "dpo":
            with torch.no_grad():
                frozen = _hidden_of_kept(start, model_input, token_kept)
                start_logprob = linear_logprob(
                    frozen.hidden, frozen.weight, frozen.target, frozen.bias,
                    temperature=temperature,
                )  # fmt: skip
        logprob = stats.logprob
        old = logprob.detach() if first is None else first.old[number]
        cu_seqlens = torch.cat([lengths.new_zeros(1), lengths[chosen].cumsum(0)])
        loss = objective_loss(
            objective,
            logprob,
            hidden.target,
            cu_seqlens.to(logprob.device),
            selection.advantage[chosen].to(logprob.device),
            old,
            start_logprob,
        )
        (loss / units).backward()
        sums.old.append(old)
        drawn_logprob = torch.cat([drawn[i] for i in chosen.tolist()])
        _count(sums, loss.detach() / units, stats, start_logprob, drawn_logprob)
    return sums


def blocks(trained: Trained, cost: torch.Tensor, config: TrainConfig) -> Iterator[Block]:
    """Cuts the trained candidates into blocks of at most `tokens_per_batch` tokens, as padded.

    Whole groups where one fits; else parts of a group, of which a pair is the smallest for
    objectives that compare pairs, and one candidate for the others.

    Args:
        cost: int64 `[B]`, tokens of each candidate with its condition.
    """
    limit = config.optimizer.tokens_per_batch
    if trained.rows.numel() == 0:
        return
    longest = int(cost[trained.index].max())
    group = trained.index.shape[1]
    rows = limit // (longest * group)
    if rows >= 1 or config.objective.name in PAIRED:
        for part in torch.arange(trained.rows.numel()).split(max(1, rows)):
            yield Block(trained.rows[part], trained.index[part], trained.valid[part])
        return
    width = max(1, limit // longest)
    for row in range(trained.rows.numel()):
        for part in torch.arange(group).split(width):
            here = slice(row, row + 1)
            if trained.valid[here, part].any():
                yield Block(
                    trained.rows[here], trained.index[here, part], trained.valid[here, part]
                )


@dataclass(frozen=True)
class _Input:
    direction: Direction
    condition: Condition
    targets: torch.Tensor | list[torch.Tensor]
    group: int
    guidance: float


def _forward_input(
    rollouts: Rollouts, condition: Condition, block: Block, config: TrainConfig
) -> _Input:
    rows, index = block.rows.tolist(), block.index.flatten()
    generation = rollouts.direction == "generation"
    if isinstance(condition, torch.Tensor):
        part: Condition = condition[block.rows.to(condition.device)]
    else:
        part = [condition[row] for row in rows]
    targets: torch.Tensor | list[torch.Tensor]
    if generation:
        targets = rollouts.pictures()[index]
    else:
        sequences = rollouts.sequences()
        targets = [sequences[i] for i in index.tolist()]
    guided = generation and config.sampling.policy == "cfg"
    guidance = config.sampling.guidance if guided else 1.0
    return _Input(rollouts.direction, part, targets, block.index.shape[1], guidance)


def _hidden_of_kept(model: UnifiedModel, given: _Input, kept: torch.Tensor) -> Hidden:
    """The model's hidden states without the tokens of candidates that are left out."""
    whole = model(given.direction, given.condition, given.targets, given.group, given.guidance)
    if bool(kept.all()):
        return whole
    return whole._replace(hidden=whole.hidden[kept], target=whole.target[kept])


def _condition_tokens(model: UnifiedModel, rollouts: Rollouts) -> int:
    if rollouts.direction == "understanding":
        return model.num_image_tokens + CONDITION_EXTRA
    return max(len(ids) for ids in model.tokenize(list(rollouts.inputs))) + CONDITION_EXTRA


@torch.no_grad()
def _count(
    sums: Sums,
    loss: torch.Tensor,
    stats: LogprobStats,
    start: torch.Tensor | None,
    drawn: torch.Tensor,
) -> None:
    sums.loss += float(loss)
    sums.tokens += stats.logprob.numel()
    sums.entropy += float(stats.entropy.sum())
    sums.gap += float((stats.logprob.cpu() - drawn).abs().sum())
    if start is not None:
        delta = start - stats.logprob
        sums.kl += float((delta.exp() - 1 - delta).sum())
