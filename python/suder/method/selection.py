"""From the rewards of a group of candidates to what is learnt from: advantages, best and worst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from suder_ext import group_advantage


@dataclass(frozen=True)
class Selection:
    """What one direction learns from in a round.

    Attributes:
        advantage: float32 `[C * N]`; 0 for dropped candidates.
        best, worst: int64 `[C]`, indices into the C * N candidates; -1 where none is valid.
        paired: bool `[C]`, whether best and worst differ in reward, so that a pair says something.
        valid: bool `[C * N]`, candidates with a reward.
    """

    advantage: torch.Tensor
    best: torch.Tensor
    worst: torch.Tensor
    paired: torch.Tensor
    valid: torch.Tensor


def select(
    reward: torch.Tensor, group: int, normalize: Literal["std", "mean", "none"] = "std"
) -> Selection:
    """Ranks the candidates of each group and turns their rewards into advantages.

    The conventions are `suder_ext.group_advantage`'s. Rewards that are not finite take no part.

    Args:
        reward: float32 `[C * group]`, condition-major.
    """
    valid = reward.isfinite()
    usable = reward.masked_fill(~valid, torch.nan)
    how = None if normalize == "none" else normalize
    advantage, best, worst = group_advantage(usable, group, how)
    # An index of -1 (no valid candidate) reads the last reward twice: equal, so never a pair.
    paired = usable[best] > usable[worst]
    return Selection(advantage, best, worst, paired, valid)
