"""A batch from its first token to its last: what to attend to, and when to look who has ended."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from suder.engine.head import Head
from suder.engine.rules import Rules
from suder.engine.step import Board, draw, step
from suder.models.base import Decoding

# Steps between two looks at which texts have ended: a look makes a GPU wait.
STEPS_BETWEEN_LOOKS = 4
# Attention runs over what is written, rounded up to a multiple of this: shapes change that often.
COLUMNS = 64


def write(decoding: Decoding, board: Board, n: int, rules: Rules, move: Callable[[], None]) -> None:
    """Fills the board of C * n candidates; stops when all have ended."""
    steps = len(board.tokens)
    whole, place = board, torch.arange(board.tokens.shape[1], device=board.tokens.device)
    head = Head(decoding.weight, decoding.bias)
    draw(decoding, head, board, rules)
    move()
    for written in range(1, steps):
        if board.end is not None and written % STEPS_BETWEEN_LOOKS == 0:
            ended = board.ended.view(-1, n).cpu()
            if ended.all():
                break
            kept = _still_going(ended)
            if kept is not None:
                conditions, rows = (part.to(place.device) for part in kept)
                if board is not whole:
                    whole.put(place, board)
                decoding, board, place = (
                    decoding.take(conditions, rows),
                    board.take(rows),
                    place[rows],
                )
                n = len(rows) // len(conditions)
        step(decoding, head, board, rules, min(steps - 1, -(-written // COLUMNS) * COLUMNS))
        move()
    if board is not whole:
        whole.put(place, board)


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
