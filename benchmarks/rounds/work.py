"""Work, and the seconds that a machine needs for it at its limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Work:
    """What has to be done before anything else can be.

    Attributes:
        moved: bytes that have to come from memory or go there.
        operations: of products, an addition and a multiplication counted as two.
        dtype: of the products' factors.
    """

    moved: float
    operations: float
    dtype: torch.dtype


@dataclass(frozen=True)
class Machine:
    """Limits of a device: bytes a second that a copy moves, read and written, and operations."""

    name: str
    copy: float
    products: dict[torch.dtype, float]

    def seconds(self, works: Iterable[Work]) -> float:
        """Each takes as long as its bytes or its products, whichever take longer."""
        return sum(
            max(one.moved / self.copy, one.operations / self.products[one.dtype]) for one in works
        )


def totals(works: Iterable[Work]) -> tuple[float, float]:
    """Bytes and operations of all together."""
    every = list(works)
    return sum(one.moved for one in every), sum(one.operations for one in every)
