"""A batch from its first token to its last: what to attend to, and when to look who has ended."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from suder.engine.graphs import Graphs
from suder.engine.step import Batch

# Steps between two looks at which texts have ended: a look makes a GPU wait.
STEPS_BETWEEN_LOOKS = 4
# Attention runs over what is written, rounded up to a multiple of this: shapes change that often.
COLUMNS = 64


def write(
    batch: Batch,
    n: int,
    move: Callable[[], None],
    graphs: Graphs | None = None,
    weights: Hashable = None,
) -> None:
    """Fills the board of C * n candidates; stops when all have ended.

    Args:
        batch: whose prefixes have been read.
        n: candidates of each condition.
        move: called after every step.
        graphs: recorded steps to run; weights: where theirs are.
    """
    whole, end, steps = batch.board, batch.board.end, len(batch.board.tokens)
    place = torch.arange(whole.tokens.shape[1], device=whole.tokens.device)

    if graphs is not None:  # what is recorded stays with them, and serves the next batch as well
        batch = replace(batch, board=whole.take(place))

    def begun(batch: Batch) -> tuple[Batch, Callable[[int, bool], None]]:
        if graphs is None:
            batch.decoding.make_room()
            return batch, batch.step
        key, batch = graphs.settled(batch, weights)
        return batch, partial(graphs.step, key, batch)

    row = batch.decoding.row
    batch, step = begun(batch)
    batch.draw()
    move()
    for written in range(1, steps):
        if end is not None and written % STEPS_BETWEEN_LOOKS == 0:
            ended = batch.board.ended.view(-1, n).cpu()
            if ended.all():
                break
            kept = _still_going(ended)
            if kept is not None:
                conditions, rows = (part.to(place.device) for part in kept)
                whole.put(place, batch.board)
                batch, step = begun(batch.take(conditions, rows))
                place, n = place[rows], len(rows) // len(conditions)
        columns = min(steps - 1, -(-written // COLUMNS) * COLUMNS)
        step(columns, bool(row) and written % row == 0)
        move()
    whole.put(place, batch.board)


def _still_going(ended: Tensor) -> tuple[Tensor, Tensor] | None:
    """Conditions `[C']` and candidates `[C' * n']` of them to go on with, of ended `[C, n]`.

    All that have not ended and, to keep the same number for each condition, some that have. Both
    numbers are halves of halves, so that there are few shapes; None until half or fewer are left.
    """
    count, n = ended.shape
    going = n - ended.sum(1)
    fewer, each = _halved(count, int((going > 0).sum())), _halved(n, int(going.max()))
    if 2 * fewer * each > count * n:
        return None
    conditions = going.argsort(descending=True, stable=True)[:fewer].sort().values
    rows = ended[conditions].int().argsort(dim=1, stable=True)[:, :each]
    return conditions, (conditions.unsqueeze(1) * n + rows).flatten()


def _halved(number: int, least: int) -> int:
    while number > 1 and (number + 1) // 2 >= least:
        number = (number + 1) // 2
    return number
