"""One token at a time for many sequences: prefixes read once, for all that continue them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from suder.models.base import Direction
from suder.models.janus.cache import KeyValues
from suder.models.janus.llama_step import LlamaStep
from suder.models.janus.parts import Parts
from suder.models.janus.prefix import Prefix
from suder.models.precision import guided, product_dtype

# On a GPU prefixes have a multiple of so many columns, for every shape of a step is recorded.
COLUMNS = 32


class JanusDecoding:
    """R = C * n sequences, condition-major; with guidance another R behind them, unconditional.

    `advance` is one function of tensors that keep their shapes and places: a step can be recorded
    and run again. All its products are those of teacher forcing, factor for factor.

    Args:
        parts: of the model.
        direction: "understanding" or "generation".
        prefix: of C conditions; with guidance their null prefixes follow.
        n: sequences that continue each prefix.
        steps: tokens that will be written at most.
        guidance: s of uncond + s * (cond - uncond).
        computing: the region that each step's products run in; this is made in one, too.
    """

    def __init__(
        self,
        parts: Parts,
        direction: Direction,
        prefix: Prefix,
        n: int,
        steps: int,
        guidance: float,
        computing: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.computing = computing
        self.before_head = parts.before_head(direction)
        weight, bias = parts.last_layer(direction)
        dtype = product_dtype(weight)
        self.weight = weight.to(dtype)
        self.bias = None if bias is None else bias.to(dtype)
        self.guidance = guidance
        self.cache = KeyValues(dtype)
        if prefix.embeddings.is_cuda:
            prefix = prefix.widened(COLUMNS)
        device, columns = prefix.embeddings.device, prefix.embeddings.shape[1]
        length = torch.tensor(prefix.lengths, device=device)
        hidden = _read_prefixes(parts.language_model, prefix.embeddings, self.cache)
        last = hidden[torch.arange(len(length), device=device), length - 1]
        self.hidden = last.repeat_interleave(n, 0)
        self.position = length.repeat_interleave(n)
        # The last token written is never read.
        self.cache.plan(length, n, steps - 1)
        self.step = LlamaStep(parts.language_model, columns + steps)
        self.embed = parts.target_embedding(direction)
        self.table = None
        if direction == "generation" and parts.image_vocab_size <= len(self.hidden) * steps:
            # Cheaper to embed the whole codebook once than every token that is drawn.
            self.table = self.embed(torch.arange(parts.image_vocab_size, device=device))

    def make_room(self) -> None:
        self.cache.make_room()

    def features(self) -> Tensor:
        with self.computing():
            hidden = self.before_head(self.hidden)
        if self.guidance != 1.0:
            cond, uncond = hidden.chunk(2)
            hidden = guided(cond, uncond, self.guidance)
        return hidden.to(self.weight.dtype)

    def advance(self, tokens: Tensor, columns: int) -> None:
        self.cache.look_at(columns)
        with self.computing():
            if self.table is None:
                embeddings = self.embed(tokens)
            else:
                embeddings = self.table.index_select(0, tokens)
            # The residual stream keeps its dtype: under autocast some embeddings are rounded.
            embeddings = embeddings.to(self.hidden.dtype)
            if self.guidance != 1.0:
                embeddings = embeddings.repeat(2, 1)
            self.hidden.copy_(self.step(embeddings, self.position, self.cache))
        self.position.add_(1)

    def take(self, conditions: Tensor, rows: Tensor) -> JanusDecoding:
        taken = copy.copy(self)
        if self.guidance != 1.0:
            conditions = torch.cat([conditions, conditions + len(self.cache.mask) // 2])
            rows = torch.cat([rows, rows + len(self.hidden) // 2])
        taken.cache = self.cache.take(conditions, rows)
        taken.hidden, taken.position = self.hidden[rows], self.position[rows]
        return taken

    def tensors(self) -> list[Tensor]:
        table = [] if self.table is None else [self.table]
        return [self.hidden, self.position, *table, *self.cache.tensors()]


def _read_prefixes(language_model: Any, prefix: Tensor, cache: KeyValues) -> Tensor:
    """`[C, P, D]` after the norm; the cache takes the keys and values."""
    columns = prefix.shape[1]
    later = torch.ones(columns, columns, dtype=torch.bool, device=prefix.device).triu_(1)
    mask = torch.zeros(1, 1, columns, columns, dtype=prefix.dtype, device=prefix.device)
    mask.masked_fill_(later, torch.finfo(prefix.dtype).min)
    positions = torch.arange(columns, device=prefix.device).unsqueeze(0)
    # The mask goes in by hand and in four dimensions, which transformers uses as it is; the cache
    # goes by position, since its keyword is being renamed.
    output = language_model(None, mask, positions, cache, prefix, use_cache=True)
    hidden: Tensor = output.last_hidden_state
    return hidden
