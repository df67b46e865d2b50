"""Which blocks a process learns from, and how it does so beside the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from suder import ranks
from suder.method.blocks import Block, blocks
from suder.method.objectives import Trained
from suder.settings.config import TrainConfig


def own_blocks(
    trained: Trained,
    tokens_of: Callable[[Block], int],
    config: TrainConfig,
    limit: int,
    together: bool,
) -> list[tuple[Block, bool]]:
    """The blocks of this process's share, and whether a block is idle, of which nothing is learnt.

    Args:
        together: no process has its weights without the others, so that all must have as many
            blocks: idle ones are added where there are less.
    """
    everyone = range(ranks.count()) if together else (ranks.rank(),)
    shares = {
        rank: list(
            blocks(trained.take(ranks.share(len(trained.rows), rank)), tokens_of, config, limit)
        )
        for rank in everyone
    }
    own = shares[ranks.rank()]
    missing = max(map(len, shares.values())) - len(own)
    idle = list(blocks(trained.take(range(1)), tokens_of, config, 1))[:1] if missing else []
    return [*((block, False) for block in own), *((block, True) for block in idle * missing)]


def alone(together: bool) -> AbstractContextManager[None]:
    """With weights of its own, a process may fail or run out of memory, and all begin again; while
    others wait for its part of the weights, it can only end.
    """
    return _in_step() if together else ranks.each()


@contextmanager
def _in_step() -> Iterator[None]:
    try:
        with ranks.talking():
            yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            "optimise: out of memory, and as the weights are divided among the processes, this one "
            "cannot try again by itself: lower optimizer.tokens_per_batch, or set "
            f"optimizer.checkpoint_activations ({error})"
        ) from error
