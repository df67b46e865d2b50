"""Log-probabilities of what was drawn, under the policy that drew it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suder import ranks
from suder.method.cut import cut
from suder.method.rollouts import Rollouts
from suder.models.base import Condition, UnifiedModel
from suder.settings.candidates import Sampling
from suder_ext import linear_logprob


def truncates(sampling: Sampling) -> bool:
    """Whether some tokens are never drawn, so that the sampler's log p is another's than this."""
    return sampling.top_k > 0 or sampling.top_p < 1


def logprob_of(
    model: UnifiedModel,
    rollouts: Rollouts,
    condition: Condition,
    sampling: Sampling,
    at_once: int,
    tokens: int | None = None,
) -> Tensor:
    """log p of each token, float32 `[T]`, under temperature and guidance, as they were drawn.

    Not under top-k and top-p: what one model's leave out the other's may draw, and their distance
    would be infinite. Guidance is in it whichever policy is trained (`sampling.policy`): the guided
    mixture drew, so only its log p says how far what is drawn has moved. Each of the run's
    processes reads its share of the inputs.

    Args:
        at_once: candidates in a pass, at most. tokens: in a pass, at most.
    """
    here = ranks.share(len(rollouts.inputs))
    own, given = rollouts.take(here), condition[here.start : here.stop]
    with ranks.each():
        logprob = _of_share(model, own, given, sampling, at_once, tokens)
    return torch.cat(ranks.gather(logprob))


def _of_share(
    model: UnifiedModel,
    rollouts: Rollouts,
    condition: Condition,
    sampling: Sampling,
    at_once: int,
    tokens: int | None,
) -> Tensor:
    """In parts no larger than what is sampled, or scored, at once."""
    direction, group, found = rollouts.direction, rollouts.group, [torch.zeros(0)]
    guidance = sampling.guidance if direction == "generation" else 1.0
    targets = rollouts.sequences()
    lengths = list(map(len, targets))

    def fits(rows: range, part: range) -> bool:
        if len(rows) * len(part) > at_once or tokens is None:
            return len(rows) * len(part) <= at_once
        given = condition[rows.start : rows.stop]
        asked = len(rows) if isinstance(given, Tensor) else given
        chosen = [lengths[row * group + i] for row in rows for i in part]
        return model.tokens_read(direction, asked, chosen, len(part), guidance) <= tokens

    for rows, part in cut(len(rollouts.inputs), group, fits):
        chosen: Any = [targets[row * group + i] for row in rows for i in part]
        if direction == "generation":
            chosen = torch.stack(chosen)
        given = condition[rows.start : rows.stop]
        read = model(direction, given, chosen, len(part), guidance)
        found.append(
            linear_logprob(
                read.hidden, read.weight, read.target, read.bias, temperature=sampling.temperature
            ).cpu()
        )
    return torch.cat(found)
