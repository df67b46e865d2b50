"""The learning rate over a stage's steps."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

WARM_UP = 0.05  # part of the steps


def up_then_cosine(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Linear from near 0 to the optimiser's rate, then half a cosine down to near 0."""
    rise = max(1, round(WARM_UP * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise + 1) / (steps - rise + 1)))

    return LambdaLR(optimizer, factor)
