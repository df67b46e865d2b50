"""The statistics of every candidate of a look, and whether the start model denies it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suder import ranks
from suder.guard.statistics import caption_statistics, joined, picture_statistics
from suder.method.judge import SelfJudge
from suder.method.rollouts import Rollouts
from suder.models.base import Condition, UnifiedModel


def of_candidates(
    rollouts: Rollouts, condition: Condition, start: UnifiedModel, judge: SelfJudge | None
) -> dict[str, Tensor]:
    """float64 `[B]` each; each of the run's processes measures its share of the inputs.

    Args:
        start: decodes pictures and texts.
        judge: asks it whether a picture shows what a text says: `denied` is 1 for a no, p(yes)
            under one half, and NaN for what cannot be asked.
    """
    here = ranks.share(len(rollouts.inputs))
    with ranks.each():
        given = condition[here.start : here.stop]
        found = _measured(rollouts.take(here), given, start, judge) if len(here) else {}
    return joined([one for one in ranks.gather(found) if one])


def _measured(
    rollouts: Rollouts, given: Any, start: UnifiedModel, judge: SelfJudge | None
) -> dict[str, Tensor]:
    if rollouts.direction == "generation":
        drawn = rollouts.pictures()
        parts = drawn.split(max(2, start.pictures_at_once))
        found = joined([picture_statistics(start.decode(part)) for part in parts])
        asked = drawn, given
    else:
        texts = start.detokenize(rollouts.sequences())
        found = caption_statistics(texts, rollouts.cu_seqlens.diff(), rollouts.finished)
        asked = given, texts
    if judge is not None:
        answer = judge(*asked, rollouts.group).cpu()
        found["denied"] = (answer < 0.5).double().masked_fill(answer.isnan(), torch.nan)
    return found
