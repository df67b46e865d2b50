"""Forward and backward of the fused kernels, and the mean of pairs' losses."""

from __future__ import annotations

import math

from benchmarks.model.cards import Card
from benchmarks.model.code import (
    CHUNK_TOKENS,
    GRADIENT_INSTRUCTIONS,
    KEEP_INSTRUCTIONS,
    KEPT_ROWS,
    KEPT_SUM_ROWS,
    SLICE_COLUMNS,
    SMALL_LAUNCHES,
    Kernels,
)
from benchmarks.model.fused import fused_forward, products_in_registers
from benchmarks.model.work import Work


def kept_tokens(code: Kernels, n: int, v: int) -> int:
    """How many of n tokens leave their exponentials for the backward."""
    fit = int(code.kept / (2.0 * v + 4.0 * math.ceil(v / 64) + 4))
    return n if n <= fit else fit // KEPT_ROWS * KEPT_ROWS


def fused_both(card: Card, code: Kernels, n: int, d: int, v: int, *, wgmma: bool) -> Work:
    """Forward; 16-bit gradients of logits in DRAM; two products with those.

    They come from what the forward kept, one read and one write of each, or from the products
    again. So do count the float32 sums that both products add to, their rounding, the copy of the
    hidden states without ignored rows, and the sums for a bias, one row for 16 tokens (64 by
    mma.sync, 32 of what was kept). What kernels with products write hides behind those.
    """
    forward = fused_forward(card, code, n, d, v, wgmma=wgmma)
    kept = kept_tokens(code, n, v)
    chunks = [min(CHUNK_TOKENS, kept - start) for start in range(0, kept, CHUNK_TOKENS)]
    again = [min(CHUNK_TOKENS, n - start) for start in range(kept, n, CHUNK_TOKENS)]
    slices = [min(SLICE_COLUMNS, v - first) for first in range(0, v, SLICE_COLUMNS)]
    seconds, dram = forward.seconds + 1.0 * kept * v * KEEP_INSTRUCTIONS / card.issue, forward.dram
    dram += 2.0 * kept * v
    for width in slices:
        for height in chunks:
            moved = 4.0 * height * width + 8.0 * height * width / KEPT_SUM_ROWS
            seconds += moved / card.copy + card.launch
            dram += moved
        for height in again:
            seconds += products_in_registers(
                card, code, height, d, width, wgmma=wgmma, instructions=GRADIENT_INSTRUCTIONS
            )[0]
            written = 2.0 * height * width + 8.0 * height * width / (16 if wgmma else 64)
            dram += 2.0 * (height + width) * d + written
        for height in chunks + again:
            for rows, columns, depth in ((height, d, width), (width, d, height)):
                operands = 2.0 * (rows + columns) * depth
                product = 2.0 * rows * columns * depth / card.product
                seconds += max(product, operands / card.copy) + card.launch
                dram += operands
    # Written, then read and written for each further slice or chunk; read, rounded and written.
    count = len(chunks + again)
    sums = (8.0 * len(slices) - 4 + 6) * n * d + (8.0 * count - 4 + 6) * v * d
    rest = sums + 4.0 * n * d
    seconds += rest / card.copy + 3 * card.launch
    name = f"fused, both ways, {'wgmma' if wgmma else 'mma.sync'}"
    return Work(name, f"{n}x{d}x{v}", 6.0 * n * d * v, dram + rest, 0.0, seconds)


def pair_loss(card: Card, code: Kernels, n: int, d: int, v: int) -> Work:
    """The mean over pairs: `fused_both`, and the small kernels of sums and losses."""
    both = fused_both(card, code, n, d, v, wgmma=True)
    seconds = both.seconds + SMALL_LAUNCHES * card.launch
    return Work("pair loss, mean, with gradients", both.shape, both.flops, both.dram, 0.0, seconds)
