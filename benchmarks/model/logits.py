"""Kernels that read rows of logits."""

from __future__ import annotations

import math

from benchmarks.model.cards import Card
from benchmarks.model.code import SPLIT_COLUMNS, Kernels
from benchmarks.model.work import Work


def rows_of_logits(card: Card, code: Kernels, n: int, v: int, bandwidth: float) -> float:
    """Seconds of the row kernel: memory, exponentials or instructions, whichever is slowest."""
    blocks, elements = n * math.ceil(v / SPLIT_COLUMNS), 1.0 * n * v
    instructions = elements * code.logit_instructions + blocks * code.row_instructions
    issue = instructions / (card.row_issue * code.logits_issue)
    return max(elements / bandwidth, elements / card.exponentials, issue)


def logits_forward(card: Card, code: Kernels, n: int, v: int) -> Work:
    dram = 2.0 * n * v
    seconds = rows_of_logits(card, code, n, v, card.read / 2) + card.launch
    return Work("logprob from logits, forward", f"{n}x{v}", 0.0, dram, 0.0, seconds)


def logits_backward(card: Card, code: Kernels, n: int, v: int) -> Work:
    dram = 4.0 * n * v
    seconds = max(dram / card.copy, n * v / card.exponentials) + card.launch
    return Work("logprob from logits, backward", f"{n}x{v}", 0.0, dram, 0.0, seconds)
