"""What a look shows to people: the first of its inputs, the same at every look."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from suder.method.rollouts import Rollouts
from suder.models.base import UnifiedModel

INPUTS = 8  # of each direction


@dataclass(frozen=True)
class Strip:
    """Of the first inputs, each one's first candidate.

    Attributes:
        pictures: uint8 `[INPUTS, H, W, 3]`, drawn for the first prompts.
        captions: of the first pictures.
    """

    pictures: np.ndarray | None = None
    captions: tuple[str, ...] = ()


def strip_of(strip: Strip, rollouts: Rollouts, model: UnifiedModel) -> Strip:
    """The strip with a direction's candidates in it, decoded by `model`."""
    shown = rollouts.take(range(min(INPUTS, len(rollouts.inputs))))
    if rollouts.direction == "generation":
        pictures = model.decode(shown.pictures()[:: shown.group].to(model.device))
        return replace(strip, pictures=np.asarray(pictures.cpu()))
    captions = model.detokenize(shown.sequences()[:: shown.group])
    return replace(strip, captions=tuple(captions))
