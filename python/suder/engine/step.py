"""One step: every sequence is given its last token and draws its next.

A function of tensors that keep their shapes and places. What changes from step to step, the count
of steps included, is in them; nothing here waits for a value. So a device can record a step once
and run it again, and a processor runs it as it is.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from suder.engine.head import Head
from suder.engine.rules import Rules
from suder.models.base import Decoding


class Board:
    """What R sequences of one batch have drawn, and will draw by.

    Args:
        uniform: float64 `[R, steps]` in [0, 1); None: always the most likely token.
        shape: R and the number of steps.
        end: the token that ends a sequence, or None. What follows it is `end` at log p 0.

    Attributes:
        tokens: int64 `[steps, R]`.
        logprob: float32 `[steps, R]`.
        token: int64 `[R]`, drawn last.
        ended: bool `[R]`.
        drawn: int64 `[1]`, tokens drawn by each sequence.
    """

    def __init__(
        self, uniform: Tensor | None, shape: tuple[int, int], end: int | None, device: torch.device
    ) -> None:
        rows, steps = shape
        self.uniform = None if uniform is None else uniform.T.contiguous().to(device)
        self.end = end
        self.tokens = torch.full((steps, rows), end or 0, device=device)
        self.logprob = torch.zeros(steps, rows, device=device)
        self.token = torch.zeros(rows, dtype=torch.int64, device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self.drawn = torch.zeros(1, dtype=torch.int64, device=device)

    def take(self, rows: Tensor) -> Board:
        """Another of these rows (int64 `[K]`)."""
        taken = copy.copy(self)
        taken.uniform = None if self.uniform is None else self.uniform[:, rows]
        taken.tokens, taken.logprob = self.tokens[:, rows], self.logprob[:, rows]
        taken.token, taken.ended = self.token[rows], self.ended[rows]
        taken.drawn = self.drawn.clone()
        return taken

    def put(self, rows: Tensor, other: Board) -> None:
        """Takes over what another, of these rows, has written."""
        self.tokens[:, rows], self.logprob[:, rows] = other.tokens, other.logprob

    def tensors(self) -> list[Tensor]:
        """All that a step reads or writes here."""
        given = [] if self.uniform is None else [self.uniform]
        return [*given, self.tokens, self.logprob, self.token, self.ended, self.drawn]


def draw(decoding: Decoding, head: Head, board: Board, rules: Rules) -> None:
    """The next token of every sequence."""
    uniform = None if board.uniform is None else board.uniform.index_select(0, board.drawn)[0]
    token, logprob = head.draw(decoding.features(), uniform, rules)
    if board.end is not None:
        token = token.masked_fill(board.ended, board.end)
        logprob = logprob.masked_fill(board.ended, 0.0)
        board.ended.logical_or_(token == board.end)
    board.token.copy_(token)
    board.tokens.index_copy_(0, board.drawn, token.unsqueeze(0))
    board.logprob.index_copy_(0, board.drawn, logprob.unsqueeze(0))
    board.drawn.add_(1)


def step(decoding: Decoding, head: Head, board: Board, rules: Rules, columns: int) -> None:
    decoding.advance(board.token, columns)
    draw(decoding, head, board, rules)
