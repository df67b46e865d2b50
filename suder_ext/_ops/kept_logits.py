"""How much a forward keeps for its backward, which computes again only what did not fit.

The CPU keeps float32 logits; other devices add themselves.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from suder_ext._load import compiled

# Kernels keep whole tiles, of so many tokens and entries of the vocabulary at most.
TILE_TOKENS, TILE_VOCAB = (1, 1) if compiled is None else compiled.logit_tile


def size(tokens: int, vocab: int) -> int:
    """Floats for all of them."""
    return -(-tokens // TILE_TOKENS) * TILE_TOKENS * -(-vocab // TILE_VOCAB) * TILE_VOCAB


def room(tokens: int, vocab: int, most: int) -> int:
    """Floats for all of them, or for as many as `most` holds."""
    return min(most, size(tokens, vocab))


def _room_on_cpu(hidden: Tensor, weight: Tensor, most_on_cpu: int) -> int:
    return room(hidden.shape[0], weight.shape[0], most_on_cpu)


# Device -> floats to keep, of hidden, weight and the most that a CPU's forward may keep.
rooms: dict[str, Callable[[Tensor, Tensor, int], int]] = {"cpu": _room_on_cpu}
