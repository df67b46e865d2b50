"""The way by tiles that stay in L2: cuBLAS's products, and a kernel over each tile."""

from __future__ import annotations

import math

from benchmarks.model.cards import Card
from benchmarks.model.code import TILE_TOKENS, TILE_VOCAB, Kernels
from benchmarks.model.logits import rows_of_logits
from benchmarks.model.work import Work


def tiles_forward(card: Card, code: Kernels, n: int, d: int, v: int) -> Work:
    """Each tile: a product that writes float32 logits, a kernel that reads them, both in L2."""
    width = min(TILE_VOCAB, v)
    tiles = math.ceil(n / TILE_TOKENS) * math.ceil(v / TILE_VOCAB)
    elements = 1.0 * TILE_TOKENS * width
    product = 2.0 * elements * d / card.product_float32
    rows = rows_of_logits(card, code, TILE_TOKENS, width, card.l2 / 4)
    dram = 2.0 * (n * d + math.ceil(n / TILE_TOKENS) * v * d)
    seconds = code.host + tiles * (product + rows + 4 * card.launch)
    flops, l2 = 2.0 * n * d * v, 8.0 * tiles * elements
    return Work("tiles, forward", f"{n}x{d}x{v}", flops, dram, l2, max(seconds, dram / card.copy))


def tiles_both(card: Card, code: Kernels, n: int, d: int, v: int) -> Work:
    """Forward, then each tile again, its gradient in place, two products: 8 NDV done, 6 told."""
    forward = tiles_forward(card, code, n, d, v)
    tiles = math.ceil(n / TILE_TOKENS) * math.ceil(v / TILE_VOCAB)
    width = min(TILE_VOCAB, v)
    products = 3 * 2.0 * n * d * v / card.product_float32
    # Float32 gradients in place, their sums for the bias, their rounding for the products.
    gradient = tiles * (18.0 * TILE_TOKENS * width / card.l2 + 6 * card.launch)
    accumulators = 8.0 * (math.ceil(v / TILE_VOCAB) * n + math.ceil(n / TILE_TOKENS) * v) * d
    seconds = forward.seconds + products + gradient + accumulators / card.copy
    dram = 2 * forward.dram + accumulators
    return Work("tiles, forward and backward", f"{n}x{d}x{v}", 6.0 * n * d * v, dram, 0.0, seconds)
