"""One reward of several: the dual reward, the model's own judgement, and one from outside."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from suder.settings.candidates import Reward
from suder.settings.reward import Part, base_of
from suder_ext import group_advantage

YES = 0.5  # from here on the model's answer is yes (Internal Gap, arXiv 2507.16663)


def combine(
    parts: Mapping[Part, Tensor], settings: Reward, group: int, entropy: float = 0.0
) -> Tensor:
    """What candidates are ranked by, float32 `[B]`; NaN: no candidate.

    - gate: a candidate that the model denies, J < 0.5, is none (Internal Gap, arXiv 2507.16663,
      takes the hard answer likewise).
    - added: R = z(R) + w z(J) + v z(X), each z inside the candidate's group: rewards of other
      scales, as nats and probabilities are, then count by their weights. z is
      `suder_ext.group_advantage`'s, (r - mean) / (std + 1e-4) with the unbiased deviation.

    - the entropy's: R + w (r - mean of r), the mean over the group's candidates (STAGE, arXiv
      2509.25027).

    A candidate lacks what any part of its reward lacks: it takes no part in the group's statistics.

    Args:
        parts: float32 `[B]` of each that the settings ask for.
        group: consecutive candidates of one input.
        entropy: weight of the part of that name; 0: there is none.
    """
    reward = parts[base_of(settings)].clone()  # a file of both holds no memory twice
    if settings.judge == "gate":
        reward = reward.masked_fill(~(parts["judge"] >= YES), torch.nan)
    added: list[tuple[float, Tensor]] = []
    if settings.judge == "sum":
        added.append((settings.judge_weight, parts["judge"]))
    if settings.external is not None and settings.external_weight is not None:
        added.append((settings.external_weight, parts["external"]))
    if not added:
        return _anchored(reward, parts, group, entropy)
    there = torch.stack([reward, *(part for _, part in added)]).isfinite().all(0)
    total = torch.zeros_like(reward)
    for weight, part in [(1.0, reward), *added]:
        total += weight * group_advantage(part.masked_fill(~there, torch.nan), group, "std")[0]
    return _anchored(total.masked_fill(~there, torch.nan), parts, group, entropy)


def _anchored(reward: Tensor, parts: Mapping[Part, Tensor], group: int, weight: float) -> Tensor:
    if not weight:
        return reward
    near = parts["entropy"].masked_fill(~reward.isfinite(), torch.nan)
    return reward + weight * group_advantage(near, group, "mean")[0]
