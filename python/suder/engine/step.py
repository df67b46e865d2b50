"""One step: every sequence is given its last token and draws its next.

A function of tensors that keep their shapes and places. What changes from step to step, the count
of steps included, is in them; nothing here waits for a value. So a device can record a step once
and run it again, and a processor runs it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from suder.engine.board import Board
from suder.engine.head import Head, Rules
from suder.models.base import Decoding


@dataclass(frozen=True)
class Batch:
    """Sequences being written."""

    decoding: Decoding
    head: Head
    board: Board
    rules: Rules

    def draw(self) -> None:
        """The next token of every sequence."""
        board = self.board
        uniform = None if board.uniform is None else board.uniform.index_select(0, board.drawn)[0]
        token, logprob, entropy = self.head.draw(self.decoding.features(), uniform, self.rules)
        if board.end is not None:
            token = token.masked_fill(board.ended, board.end)
            logprob = logprob.masked_fill(board.ended, 0.0)
            entropy = entropy.masked_fill(board.ended, 0.0)
            board.ended.logical_or_(token == board.end)
        board.token.copy_(token)
        board.tokens.index_copy_(0, board.drawn, token.unsqueeze(0))
        board.logprob.index_copy_(0, board.drawn, logprob.unsqueeze(0))
        board.entropy.index_copy_(0, board.drawn, entropy.unsqueeze(0))
        board.drawn.add_(1)

    def step(self, columns: int, row_ends: bool = False) -> None:
        """Attention runs over `columns` own tokens, no less than have been drawn.

        `row_ends`: a picture's row ends before the token to draw; such a step is another function.
        """
        self.decoding.advance(self.board.token, columns, row_ends)
        self.draw()

    def take(self, conditions: Tensor, rows: Tensor) -> Batch:
        """Another that goes on with sequences `rows[C' * n']` only, of conditions `[C']`."""
        decoding, board = self.decoding.take(conditions, rows), self.board.take(rows)
        return Batch(decoding, self.head, board, self.rules)

    def tensors(self) -> list[Tensor]:
        """All that a step reads or writes, but weights."""
        return [*self.decoding.tensors(), *self.board.tensors()]
