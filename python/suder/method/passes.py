"""A block of candidates as what a model reads, and its hidden states where they are predicted."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from suder.method.blocks import Block
from suder.method.rollouts import Rollouts
from suder.models.base import Condition, Direction, Hidden, UnifiedModel
from suder.settings.config import TrainConfig
from suder_ext import linear_kl


def cu_seqlens_of(lengths: torch.Tensor, device: torch.device) -> torch.Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(device)


@dataclass(frozen=True)
class Input:
    direction: Direction
    condition: Condition
    targets: torch.Tensor | list[torch.Tensor]
    group: int
    guidance: float


def model_input(
    rollouts: Rollouts, condition: Condition, block: Block, config: TrainConfig
) -> Input:
    rows, index = block.rows.tolist(), block.index.flatten()
    if isinstance(condition, torch.Tensor):
        part: Condition = condition[block.rows.to(condition.device)]
    else:
        part = [condition[row] for row in rows]
    targets: torch.Tensor | list[torch.Tensor]
    if rollouts.direction == "generation":
        targets = rollouts.pictures()[index]
    else:
        begin, end = rollouts.cu_seqlens[index].tolist(), rollouts.cu_seqlens[index + 1].tolist()
        targets = [rollouts.tokens[i:j] for i, j in zip(begin, end, strict=True)]
    guidance = guidance_of(rollouts, config)
    return Input(rollouts.direction, part, targets, block.index.shape[1], guidance)


def hidden_of(model: UnifiedModel, given: Input, kept: torch.Tensor | None = None) -> Hidden:
    """The model's hidden states without the tokens of candidates that are left out."""
    whole = model(given.direction, given.condition, given.targets, given.group, given.guidance)
    if kept is None or bool(kept.all()):
        return whole
    return whole._replace(hidden=whole.hidden[kept], target=whole.target[kept])


def kl_between(policy: Hidden, start: Hidden, temperature: float) -> torch.Tensor:
    """KL(policy || start) over the vocabulary at each position, float32 `[T]`, never below 0.

    The gradient goes to the policy; `start` has none.
    """
    return linear_kl(
        policy.hidden,
        policy.weight,
        start.hidden,
        start.weight,
        policy.bias,
        start.bias,
        temperature=temperature,
    )


def tokens_read(model: UnifiedModel, rollouts: Rollouts, config: TrainConfig, block: Block) -> int:
    rows = block.rows.tolist()
    seen = rollouts.direction == "understanding"
    condition = len(rows) if seen else [rollouts.inputs[row] for row in rows]
    lengths = rollouts.cu_seqlens.diff()[block.index.flatten()].tolist()
    guidance = guidance_of(rollouts, config)
    return model.tokens_read(rollouts.direction, condition, lengths, block.index.shape[1], guidance)


def guidance_of(rollouts: Rollouts, config: TrainConfig) -> float:
    """Of the policy that is trained."""
    guided = rollouts.direction == "generation" and config.sampling.policy == "cfg"
    return config.sampling.guidance if guided else 1.0
