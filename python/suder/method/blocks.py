"""The cut of a round's trained candidates into parts that go through the model at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from suder.method.objectives import Trained
from suder.settings.config import TrainConfig
from suder.settings.objective import PAIRED


@dataclass(frozen=True)
class Block:
    """A part of the candidates that goes through the model at once, `index[R, g]`."""

    rows: torch.Tensor
    index: torch.Tensor
    valid: torch.Tensor

    def candidates(self) -> torch.Tensor:
        """int64, those that are not left out, in the order of their tokens."""
        return self.index.flatten()[self.valid.flatten()]


def blocks(
    trained: Trained, cost: torch.Tensor, config: TrainConfig, limit: int
) -> Iterator[Block]:
    """Cuts the trained candidates into blocks of at most `limit` tokens, as padded.

    Whole groups where one fits; else parts of a group, of which a pair is the smallest for
    objectives that compare pairs, and one candidate for the others.

    Args:
        cost: int64 `[B]`, tokens of each candidate with its condition.
    """
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
