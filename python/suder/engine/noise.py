"""Random numbers that depend on the seed, the condition and the candidate alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Noise:
    """Uniform numbers in [0, 1), one stream a condition, which goes on from batch to batch.

    Drawn on the CPU, so that a seed means the same on every device.
    """

    def __init__(self, seed: int, steps: int) -> None:
        self.seed, self.steps = seed, steps
        self.condition = -1
        self.stream = torch.Generator()

    def draw(self, conditions: range, each: int) -> Tensor:
        """The next `each` candidates' numbers, float64 `[len(conditions) * each, steps]`."""
        return torch.cat([self._draw(condition, each) for condition in conditions])

    def _draw(self, condition: int, each: int) -> Tensor:
        if condition != self.condition:
            self.condition = condition
            state = np.random.SeedSequence([self.seed, condition]).generate_state(1, np.uint64)[0]
            self.stream.manual_seed(int(state) >> 1)
        return torch.rand(each, self.steps, generator=self.stream, dtype=torch.float64)
