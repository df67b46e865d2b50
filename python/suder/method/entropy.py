"""The policy's entropy, held near the start model's by a reward (`objective.entropy_anchor`)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from suder import ranks
from suder.method.anchor import everyone
from suder.method.blocks import blocks
from suder.method.passes import cu_seqlens_of, hidden_of, model_input, tokens_read
from suder.method.rollouts import Rollouts
from suder.models.base import Condition, UnifiedModel, inference
from suder.settings.config import TrainConfig
from suder_ext import linear_logprob_stats, sequence_reduce


def entropy_reward(
    policy: UnifiedModel,
    start: UnifiedModel,
    rollouts: Rollouts,
    condition: Condition,
    config: TrainConfig,
    tokens: int | None = None,
) -> Tensor:
    """r = 1 / (1 + (H_start - H)^2) of every candidate, float32 `[B]` on the CPU.

    H is the mean over a candidate's positions of the entropy, in nats, of the next token's
    distribution: of the policy, and of the start model at the same positions (STAGE, arXiv
    2509.25027, entropy reward). 1 where both are as sure, falling as either is surer. Each of the
    run's processes looks at its share of the inputs.

    Args:
        tokens: of a forward, at most; None: as many as the config says.
    """
    here = ranks.share(len(rollouts.inputs))
    own, given = rollouts.take(here), condition[here.start : here.stop]
    with ranks.each():
        both = [mean_entropy(one, own, given, config, tokens) for one in (policy, start)]
        reward = 1.0 / (1.0 + (both[1] - both[0]) ** 2)
    return torch.cat(ranks.gather(reward))


@torch.no_grad()
def mean_entropy(
    model: UnifiedModel,
    rollouts: Rollouts,
    condition: Condition,
    config: TrainConfig,
    tokens: int | None = None,
) -> Tensor:
    """Nats a position of every candidate, float32 `[B]` on the CPU, in passes of so many tokens."""
    found = [torch.zeros(0)]
    if not rollouts.inputs:
        return found[0]
    lengths = rollouts.cu_seqlens.diff()
    tokens_of = partial(tokens_read, model, rollouts, config)
    limit = tokens or config.optimizer.tokens_per_batch
    with inference(model):
        for block in blocks(
            everyone(len(rollouts.inputs), rollouts.group), tokens_of, config, limit
        ):
            hidden = hidden_of(model, model_input(rollouts, condition, block, config))
            stats = linear_logprob_stats(
                hidden.hidden, hidden.weight, hidden.target, hidden.bias,
                temperature=config.sampling.temperature,
            )  # fmt: skip
            packed = hidden.target, cu_seqlens_of(lengths[block.candidates()], hidden.target.device)
            found.append(sequence_reduce(stats.entropy, *packed, mean=True)[0].cpu())
    return torch.cat(found)
