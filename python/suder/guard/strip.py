"""What a look shows to people: the first of its inputs, the same at every look."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from suder.method.rollouts import Rollouts
from suder.models.base import Direction, UnifiedModel

INPUTS = 8  # of each direction


@dataclass(frozen=True)
class Strip:
    """Of the first inputs, each one's first candidate.

    Attributes:
        pictures: uint8 `[INPUTS, H, W, 3]`, drawn for the first prompts.
        captions: of the first pictures.
        rewards: of both, by direction, as the guard scores; NaN where there is none.
    """

    pictures: np.ndarray | None = None
    captions: tuple[str, ...] = ()
    rewards: dict[Direction, tuple[float, ...]] = field(default_factory=dict)


def strip_of(strip: Strip, rollouts: Rollouts, model: UnifiedModel, rewards: torch.Tensor) -> Strip:
    """The strip with a direction's candidates, decoded by `model`; `rewards` are all `[B]`."""
    first = tuple(rewards[:: rollouts.group][:INPUTS].tolist())
    strip = replace(strip, rewards=strip.rewards | {rollouts.direction: first})
    shown = rollouts.take(range(min(INPUTS, len(rollouts.inputs))))
    if rollouts.direction == "generation":
        pictures = model.decode(shown.pictures()[:: shown.group].to(model.device))
        return replace(strip, pictures=np.asarray(pictures.cpu()))
    captions = model.detokenize(shown.sequences()[:: shown.group])
    return replace(strip, captions=tuple(captions))
