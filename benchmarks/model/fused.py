"""Kernels that keep logits in registers."""

from __future__ import annotations

import math

from benchmarks.model.cards import Card
from benchmarks.model.code import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    CLUSTER,
    DRY,
    EPILOGUE_INSTRUCTIONS,
    GROUP_ROWS,
    Kernels,
)
from benchmarks.model.work import Work, last_wave, waves


def merge(card: Card, code: Kernels, n: int, splits: int) -> float:
    """Seconds to join the states of a row's parts."""
    return card.launch + splits * code.merge_latency + 16.0 * n * splits / code.merge


def products_in_registers(
    card: Card,
    code: Kernels,
    n: int,
    d: int,
    v: int,
    *,
    wgmma: bool,
    instructions: int,
    skew: int = 0,
) -> tuple[float, int]:
    """Seconds of a fused kernel, forward or gradient, and into how many parts a row is cut.

    By wgmma the products run at the pace of a bare product's or at that of their operands from L2,
    whichever is slower. What a cluster's blocks share counts once: that L2 and the way from it see
    it once is an assumption. Rows are filled up to whole clusters. Halves of a tile that are some
    steps apart hide as many steps' time of the epilogues, and let the pipe run dry twice.
    """
    cluster = CLUSTER if wgmma else 1
    tiles = math.ceil(v / BLOCK_COLUMNS)
    each = math.ceil(tiles / code.most_splits)
    splits = math.ceil(tiles / each)
    elements, depth = 1.0 * BLOCK_ROWS * BLOCK_COLUMNS, math.ceil(d / 64) * 64
    l2 = 2.0 * (BLOCK_ROWS + BLOCK_COLUMNS / cluster) * depth
    rate = card.product if wgmma else card.mma_sync * code.mma_share
    # What L2 was seen to give, by whichever way its answers come.
    product = max(2.0 * elements * depth / rate, l2 / (card.tma or card.l2))
    epilogue = elements * max(1 / card.exponentials, instructions / card.issue)
    if skew:
        epilogue = (
            max(0.0, epilogue - product * skew / (depth / 64)) + 2 * DRY / card.multiprocessors
        )
    tile = (product + epilogue) * card.multiprocessors
    clusters, rest = divmod(n, BLOCK_ROWS * cluster)
    if not code.short_parts_last:
        parts = math.ceil(n / BLOCK_ROWS / cluster) * splits * cluster
        filled = waves(parts, card, cluster) if wgmma else last_wave(parts, card)
        return tile * tiles / splits * parts * filled / card.multiprocessors, splits
    # Blocks take parts in turn.
    weights = [1.0] * (clusters * splits)
    weights += [0.5 if wgmma and rest <= GROUP_ROWS else 1.0] * (splits * (rest > 0))
    at_once = card.multiprocessors // cluster
    longest = max(sum(weights[first::at_once]) for first in range(min(at_once, len(weights))))
    return tile * tiles / splits * longest, splits


def fused_forward(card: Card, code: Kernels, n: int, d: int, v: int, *, wgmma: bool) -> Work:
    """Logits in registers; 16 bytes a token and split."""
    kernel, splits = products_in_registers(
        card, code, n, d, v, wgmma=wgmma, instructions=EPILOGUE_INSTRUCTIONS, skew=code.skew * wgmma
    )
    seconds = code.host + kernel + merge(card, code, n, splits) + card.launch
    dram = 2.0 * (n * d + v * d) + 32.0 * n * splits
    name = f"fused forward, {'wgmma' if wgmma else 'mma.sync'}"
    return Work(name, f"{n}x{d}x{v}", 2.0 * n * d * v, dram, 0.0, seconds)
