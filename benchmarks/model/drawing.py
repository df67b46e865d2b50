"""Drawing a token: one block a row of logits; from hidden states after products of few rows."""

from __future__ import annotations

import math

from benchmarks.model.cards import Card
from benchmarks.model.code import DRAW_HEIGHT, DRAW_LATENCY, Kernels
from benchmarks.model.work import Work


def sample_token(card: Card, code: Kernels, n: int, v: int, source: str = "read") -> Work:
    """Float32 logits. A block reads its row once, at its multiprocessor's share of the bandwidth,
    and then a part of it, a share of that and a few steps, each waiting for the one before."""
    bandwidth = card.read if source == "read" else card.l2
    each = max(4.0 * v / bandwidth, v / card.exponentials) * card.multiprocessors
    seconds = math.ceil(n / card.multiprocessors) * (each + DRAW_LATENCY) + card.launch
    return Work("sample_token", f"{n}x{v}", 0.0, 4.0 * n * v, 0.0, seconds)


def linear_sample_token(card: Card, code: Kernels, n: int, d: int, v: int) -> Work:
    """Products of 128 rows into float32 logits, which stay in L2, and a draw from those."""
    seconds, dram, l2 = code.host, 0.0, 0.0
    for first in range(0, n, DRAW_HEIGHT):
        weight, logits = 2.0 * v * d, 4.0 * DRAW_HEIGHT * v
        multiplied = 2.0 * DRAW_HEIGHT * d * v / card.product_float32
        seconds += max(multiplied, weight / card.read, (weight + logits) / card.l2) + card.launch
        seconds += sample_token(card, code, min(DRAW_HEIGHT, n - first), v, "l2").seconds
        dram, l2 = dram + weight, l2 + 2 * logits
    flops = 2.0 * n * d * v
    return Work("linear_sample_token", f"{n}x{d}x{v}", flops, dram, l2, seconds)
