"""How many float32 logits the CPU's forward keeps for its backward, which computes again only what
did not fit.
"""

from __future__ import annotations

from suder_ext._load import compiled

# Kernels keep whole tiles, of so many tokens and entries of the vocabulary at most.
TILE_TOKENS, TILE_VOCAB = (1, 1) if compiled is None else compiled.logit_tile


def size(tokens: int, vocab: int) -> int:
    """Floats for all of them."""
    return -(-tokens // TILE_TOKENS) * TILE_TOKENS * -(-vocab // TILE_VOCAB) * TILE_VOCAB


def room(tokens: int, vocab: int, most: int) -> int:
    """Floats for all of them, or for as many as `most` holds."""
    return min(most, size(tokens, vocab))
