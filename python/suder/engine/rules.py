"""How logits become the distribution that a token is drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """Temperature, then top-k, then top-p: the order of transformers' samplers."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature: takes a finite number above 0, got {self.temperature}; "
                "for the most likely token ask for greedy=True"
            )
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                "top_k takes integers from 0 (off), top_p numbers in (0, 1]; "
                f"got top_k={self.top_k}, top_p={self.top_p}"
            )
