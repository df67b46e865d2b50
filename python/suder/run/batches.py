"""How much goes through the model at once; half of it from where a device runs out of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from suder.engine.sampling import FEWEST
from suder.settings.config import TrainConfig

T = TypeVar("T")
LEAST_TOKENS = 64


class Batches:
    """Sizes of batches, which results do not depend on but for the order of sums.

    Attributes:
        tokens: of a forward, conditions included.
        rows: candidates that are drawn at once.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.tokens = config.optimizer.tokens_per_batch
        self.rows = config.sampling.batch_size

    def within_memory(self, work: Callable[[], T], say: Callable[[str], None], what: str) -> T:
        """What `work` returns; it is done again with half as much at once as often as need be.

        Raises:
            torch.cuda.OutOfMemoryError: the least is still too much.
        """
        while True:
            try:
                return work()
            except torch.cuda.OutOfMemoryError:
                if self.tokens <= LEAST_TOKENS and self.rows <= FEWEST:
                    raise
            # Here, and not above: there the error still holds what was being computed.
            self.tokens = max(LEAST_TOKENS, self.tokens // 2)
            self.rows = max(FEWEST, self.rows // 2)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            say(
                f"{what}: out of memory; from here on at most {self.tokens} tokens in a forward "
                f"and {self.rows} candidates drawn at once (optimizer.tokens_per_batch, "
                "sampling.batch_size)"
            )
