"""One token at a time for many sequences: prefixes read once, for all that continue them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from suder.models.base import Direction
from suder.models.decoder.cache import KeyValues
from suder.models.decoder.llama_step import LlamaStep
from suder.models.decoder.parts import Parts
from suder.models.decoder.prefix import Prefix
from suder.models.precision import guided, product_dtype

# On a GPU prefixes have a multiple of so many columns, for every shape of a step is recorded.
COLUMNS = 32


class DecoderDecoding:
    """R = C * n sequences, condition-major; with guidance another R behind them, unconditional.

    `advance` is one function of tensors that keep their shapes and places: a step can be recorded
    and run again. All its products are those of teacher forcing, factor for factor.

    Where a picture's rows end in a token, `columns` counts those that are drawn; what is read in
    between is added here.

    Args:
        parts: of the model.
        direction: "understanding" or "generation".
        prefix: of C conditions; with guidance their null prefixes follow.
        n: sequences that continue each prefix.
        steps: tokens that will be drawn at most.
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
        self.row = parts.row if direction == "generation" else 0
        self.cache.plan(length, n, self._read_by(steps - 1))
        self.step = LlamaStep(parts.language_model, columns + self._read_by(steps))
        self.embed = parts.target_embedding(direction)
        self.row_end = None
        if self.row:
            self.row_end = self.embed(torch.tensor([parts.image_vocab_size], device=device))
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

    def advance(self, tokens: Tensor, columns: int, row_ends: bool = False) -> None:
        self.cache.look_at(self._read_by(columns))
        with self.computing():
            if self.table is None:
                self._read(self.embed(tokens))
            else:
                self._read(self.table.index_select(0, tokens))
            if row_ends:
                assert self.row_end is not None, "there are no rows"
                self._read(self.row_end.expand(len(tokens), -1))

    def _read(self, embeddings: Tensor) -> None:
        # The residual stream keeps its dtype: under autocast some embeddings are rounded.
        embeddings = embeddings.to(self.hidden.dtype)
        if self.guidance != 1.0:
            embeddings = embeddings.repeat(2, 1)
        self.hidden.copy_(self.step(embeddings, self.position, self.cache))
        self.position.add_(1)

    def _read_by(self, drawn: int) -> int:
        """Tokens read when so many have been drawn and read, ends of rows included."""
        return drawn + drawn // self.row if self.row else drawn

    def take(self, conditions: Tensor, rows: Tensor) -> DecoderDecoding:
        taken = copy.copy(self)
        if self.guidance != 1.0:
            conditions = torch.cat([conditions, conditions + len(self.cache.mask) // 2])
            rows = torch.cat([rows, rows + len(self.hidden) // 2])
        taken.cache = self.cache.take(conditions, rows)
        taken.hidden, taken.position = self.hidden[rows], self.position[rows]
        return taken

    def tensors(self) -> list[Tensor]:
        given = [one for one in (self.table, self.row_end) if one is not None]
        return [self.hidden, self.position, *given, *self.cache.tensors()]


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
