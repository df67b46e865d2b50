"""What the sequences of one batch have drawn, and will draw by."""

from __future__ import annotations

import copy

import torch
from torch import Tensor


class Board:
    """What R sequences of one batch have drawn, and will draw by.

    Args:
        uniform: float64 `[R, steps]` in [0, 1); None: always the most likely token.
        shape: R and the number of steps.
        end: the token that ends a sequence, or None. What follows it is `end`, at log p 0 and
            entropy 0.

    Attributes:
        tokens: int64 `[steps, R]`.
        logprob, entropy: float32 `[steps, R]`.
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
        self.entropy = torch.zeros(steps, rows, device=device)
        self.token = torch.zeros(rows, dtype=torch.int64, device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self.drawn = torch.zeros(1, dtype=torch.int64, device=device)

    def take(self, rows: Tensor) -> Board:
        """Another of these rows (int64 `[K]`)."""
        taken = copy.copy(self)
        taken.uniform = None if self.uniform is None else self.uniform[:, rows]
        taken.tokens, taken.logprob = self.tokens[:, rows], self.logprob[:, rows]
        taken.entropy = self.entropy[:, rows]
        taken.token, taken.ended = self.token[rows], self.ended[rows]
        taken.drawn = self.drawn.clone()
        return taken

    def put(self, rows: Tensor, other: Board) -> None:
        """Takes over what another, of these rows, has written."""
        if other is not self:
            self.tokens[:, rows], self.logprob[:, rows] = other.tokens, other.logprob
            self.entropy[:, rows] = other.entropy

    def tensors(self) -> list[Tensor]:
        """All that a step reads or writes here."""
        given = [] if self.uniform is None else [self.uniform]
        written = self.tokens, self.logprob, self.entropy
        return [*given, *written, self.token, self.ended, self.drawn]
