"""One token a sequence through a Llama whose earlier keys and values are at hand.

The same sums as transformers' forward, with none of its work that repeats at every step: a small
model spends most of a step there. Linear layers are called as modules, so adapters and quantised
layers stay in force.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class KeyValues:
    """Keys and values of every layer, in memory allocated once.

    transformers' attention layers call `update(key, value, layer, ...)` while the prefixes are
    read; after `expand`, `append` adds a token to every sequence.
    """

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.length = 0

    def update(
        self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        assert layer == len(self.keys), "prefixes are read in one pass"
        self.keys.append(key)
        self.values.append(value)
        return key, value

    def expand(self, rows: Tensor, capacity: int, dtype: torch.dtype) -> None:
        """Row r becomes a copy of row `rows[r]`, with room for `capacity` positions in all.

        `dtype` is that of attention's products, which would round them at every step.
        """

        def widened(old: Tensor) -> Tensor:
            shape = (len(rows), old.shape[1], capacity, old.shape[3])
            new = old.new_empty(shape, dtype=dtype)
            new[:, :, : old.shape[2]] = old.index_select(0, rows)
            return new

        self.length = self.keys[0].shape[2]
        self.keys = [widened(key) for key in self.keys]
        self.values = [widened(value) for value in self.values]

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Writes `[R, H, d]` at the current position; returns all `[R, H, T, d]` up to it."""
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.length] = key
        values[:, :, self.length] = value
        end = self.length + 1
        return keys[:, :, :end], values[:, :, :end]

    def keep(self, rows: Tensor) -> None:
        self.keys = [key.index_select(0, rows) for key in self.keys]
        self.values = [value.index_select(0, rows) for value in self.values]


class LlamaStep:
    """`step(embeddings[R, D], position[R], cache, mask)`: hidden states `[R, D]` after the norm.

    Args:
        llama: transformers' `LlamaModel`.
        positions: how many positions a sequence can have.
    """

    def __init__(self, llama: Any, positions: int) -> None:
        self.llama = llama
        weight = llama.embed_tokens.weight
        every = torch.arange(positions, device=weight.device).unsqueeze(0)
        cos, sin = llama.rotary_emb(weight, every)
        half = sin.shape[-1] // 2
        self.cos = cos[0]
        # Of x * cos + (-x2, x1) * sin, the sign is put into the table.
        self.sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)

    def __call__(
        self, embeddings: Tensor, position: Tensor, cache: KeyValues, mask: Tensor | None
    ) -> Tensor:
        cos, sin = self.cos[position].unsqueeze(1), self.sin[position].unsqueeze(1)
        hidden = embeddings
        for index, layer in enumerate(self.llama.layers):
            normed = _norm(layer.input_layernorm, hidden)
            hidden = hidden + _attend(layer.self_attn, index, normed, cos, sin, cache, mask)
            hidden = hidden + layer.mlp(_norm(layer.post_attention_layernorm, hidden))
        cache.length += 1
        return _norm(self.llama.norm, hidden)


def _attend(
    attention: Any,
    index: int,
    normed: Tensor,
    cos: Tensor,
    sin: Tensor,
    cache: KeyValues,
    mask: Tensor | None,
) -> Tensor:
    heads = (len(normed), -1, attention.head_dim)
    query = attention.q_proj(normed).view(heads)
    queries = query.shape[1]
    turned = torch.cat([query, attention.k_proj(normed).view(heads)], 1)
    half = attention.head_dim // 2
    swapped = torch.cat([turned[..., half:], turned[..., :half]], -1)
    turned = turned * cos + swapped * sin
    value = attention.v_proj(normed).view(heads)
    keys, values = cache.append(index, turned[:, queries:], value)
    seen = _look(
        turned[:, :queries].unsqueeze(2).to(keys.dtype), keys, values, mask, attention.scaling
    )
    output: Tensor = attention.o_proj(seen.flatten(1))
    return output


def _look(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of one query a sequence, `[R, H, 1, d]`."""
    grouped = keys.shape[1] != query.shape[1]
    if query.dtype != torch.float32 or query.is_cuda or grouped:
        return F.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, scale=scale, enable_gqa=grouped
        )
    # The CPU's fused kernel is made for many queries; for one, the plain products take two thirds
    # of its time.
    scores = torch.matmul(query * scale, keys.transpose(-1, -2))
    if mask is not None:
        scores += mask
    return torch.matmul(scores.softmax(-1), values)


def _norm(module: Any, hidden: Tensor) -> Tensor:
    if hidden.dtype == torch.float32:
        return F.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)
    normed: Tensor = module(hidden)  # rounds where transformers rounds
    return normed
