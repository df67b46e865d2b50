"""What a call does, and waves of blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.model.cards import Card
from benchmarks.model.code import BARE_ROWS, BLOCK_COLUMNS


@dataclass(frozen=True)
class Work:
    """What a call does: floating-point operations of products, and bytes by where they lie."""

    name: str
    shape: str
    flops: float
    dram: float
    l2: float
    seconds: float

    @property
    def tflops(self) -> float:
        """Effective TFLOP/s, of the operations the caller asked for."""
        return self.flops / self.seconds / 1e12


def waves(blocks: int, card: Card, cluster: int = 1) -> float:
    """How much longer whole waves of blocks, or of clusters of them, take than their work."""
    at_once = card.multiprocessors // cluster * cluster
    return math.ceil(blocks / at_once) * at_once / blocks


def last_wave(blocks: int, card: Card) -> float:
    """The same where blocks do not run in step: a last wave's empty places cost half as much."""
    return (waves(blocks, card) + 1) / 2


def bare_product(card: Card, n: int, d: int, v: int) -> Work:
    flops = 2.0 * n * d * v
    blocks = math.ceil(n / BARE_ROWS) * math.ceil(v / BLOCK_COLUMNS)
    dram = 2.0 * (n * d + v * d + n * v)
    seconds = max(flops / card.product * waves(blocks, card), dram / card.copy)
    return Work("bare product, bf16 out", f"{n}x{d}x{v}", flops, dram, 0.0, seconds)
