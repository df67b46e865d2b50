"""The cut of a round's trained candidates into parts that go through the model at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from suder.method.cut import cut
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
    trained: Trained, tokens_of: Callable[[Block], int], config: TrainConfig, limit: int
) -> Iterator[Block]:
    """Cuts the trained candidates into blocks of at most `limit` tokens, in their order.

    Whole groups where one fits; else parts of a group, of which a pair is the smallest for
    objectives that compare pairs, and one candidate for the others.

    Args:
        tokens_of: what a block puts through the model, padding included.
    """

    def block(rows: range, part: range) -> Block:
        here = slice(rows.start, rows.stop), slice(part.start, part.stop)
        return Block(trained.rows[here[0]], trained.index[here], trained.valid[here])

    def fits(rows: range, part: range) -> bool:
        return tokens_of(block(rows, part)) <= limit

    count, group = trained.index.shape
    for rows, part in cut(count, group, fits, whole=config.objective.name in PAIRED):
        one = block(rows, part)
        if len(part) == group or one.valid.any():
            yield one
