"""The direction that a round does not train, held to the start.

Both directions share the weights, so what one learns the other forgets, and no reward of the round
says so. Few samples of it are enough: the KL is exact at each of their positions, and small.
"""

from __future__ import annotations

from functools import partial

import torch

from suder import ranks
from suder.method.objectives import Trained
from suder.method.passes import cu_seqlens_of, hidden_of, kl_between, model_input, tokens_read
from suder.method.rollouts import Rollouts
from suder.method.shares import alone, own_blocks
from suder.models.base import Condition, UnifiedModel
from suder.settings.config import TrainConfig
from suder_ext import sequence_reduce


def everyone(rows: int, group: int) -> Trained:
    """All candidates, whatever they are worth."""
    index = torch.arange(rows * group).view(rows, group)
    return Trained(torch.arange(rows), index, torch.ones_like(index, dtype=torch.bool))


def add_anchor(
    policy: UnifiedModel,
    start: UnifiedModel,
    rollouts: Rollouts,
    condition: Condition,
    config: TrainConfig,
    tokens: int | None = None,
) -> float:
    """Adds the gradient of the weighted KL to the start to the parameters' `.grad`.

    It is a term of the loss of the direction that is trained, beside that one's own KL and in its
    units (the mean over sequences of the mean over positions), so it is balanced with it: by
    itself it has a norm near 0, which must not be scaled up to the other's.

    Args:
        rollouts: drawn by the policy of this round, or one a few steps older.
        tokens: of a forward, at most; None: as many as the config says.

    Returns:
        The KL, nats per token, of all processes' samples.
    """
    lengths = rollouts.cu_seqlens.diff()
    limit = tokens or config.optimizer.tokens_per_batch
    together = ranks.count() > 1 and any(map(ranks.divided, policy.parameters()))
    tokens_of = partial(tokens_read, policy, rollouts, config)
    samples = everyone(len(rollouts.inputs), rollouts.group)
    total = count = 0.0
    with alone(together):
        for block, idle in own_blocks(samples, tokens_of, config, limit, together):
            given = model_input(rollouts, condition, block, config)
            hidden = hidden_of(policy, given)
            with torch.no_grad():
                frozen = hidden_of(start, given)
            kl = kl_between(hidden, frozen, config.sampling.temperature)
            packed = hidden.target, cu_seqlens_of(lengths[block.candidates()], kl.device)
            mean = sequence_reduce(kl, *packed, mean=True)[0].sum() / len(rollouts)
            ((0.0 if idle else config.anchor) * mean).backward()
            if not idle:
                total, count = total + float(kl.detach().double().sum()), count + kl.numel()
    total, count = ranks.total([total, count])
    return total / max(1, count)
