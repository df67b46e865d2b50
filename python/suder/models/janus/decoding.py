"""One token at a time for many sequences: prefixes read once, then copied to their candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from suder.models.base import Direction
from suder.models.janus.llama_step import KeyValues, LlamaStep
from suder.models.janus.parts import Parts
from suder.models.precision import exactly, guided, product_dtype


class Head:
    """The last linear layer: float32 sums of what teacher forcing multiplies, factor for factor.

    No logit is rounded to 16 bits before it is used.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.dtype = product_dtype(weight)
        weight = weight.to(self.dtype)
        bias = None if bias is None else bias.to(self.dtype)
        self.float_bias = None if bias is None else bias.float()
        self.native = weight.dtype != torch.float32 and weight.is_cuda
        # On a GPU the product of 16-bit factors can be written out in float32 as it is summed;
        # elsewhere the weight is converted, once for all steps.
        self.weight = weight if self.native else weight.float()

    def __call__(self, hidden: Tensor) -> Tensor:
        hidden = hidden.to(self.dtype)
        with exactly(hidden.device):
            if not self.native:
                return F.linear(hidden.float(), self.weight, self.float_bias)
            logits = torch.mm(hidden, self.weight.T, out_dtype=torch.float32)
            return logits if self.float_bias is None else logits + self.float_bias


class JanusDecoding:
    """R = C * n sequences, condition-major; with guidance another R behind them, unconditional.

    Args:
        parts: of the model.
        direction: "understanding" or "generation".
        prefix: embeddings `[C, P, D]`, right-padded; with guidance null prefixes follow them.
        lengths: lengths of the prefixes.
        rows: int64 `[R]` or `[2R]`, which prefix each sequence continues.
        steps: tokens that will be written at most.
        guidance: s of uncond + s * (cond - uncond).
        computing: the region that each step's products run in; this is made in one, too.
    """

    def __init__(
        self,
        parts: Parts,
        direction: Direction,
        prefix: Tensor,
        lengths: Sequence[int],
        rows: Tensor,
        steps: int,
        guidance: float,
        computing: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.computing = computing
        self.before_head = parts.before_head(direction)
        self.head = Head(*parts.last_layer(direction))
        self.guidance = guidance
        self.cache = KeyValues()
        device, columns = prefix.device, prefix.shape[1]
        rows, length = rows.to(device), torch.tensor(lengths, device=device)
        hidden = _read_prefixes(parts.language_model, prefix, self.cache)
        self.hidden = hidden[torch.arange(len(lengths), device=device), length - 1][rows]
        # The last token written is never read.
        self.cache.expand(rows, columns + steps - 1, self.head.dtype)
        self.position = length[rows]
        self.step = LlamaStep(parts.language_model, columns + steps)
        embed = parts.target_embedding(direction)
        if direction == "generation" and parts.image_vocab_size <= len(rows) * steps:
            # Cheaper to embed the whole codebook once than every token that is drawn.
            embed = embed(torch.arange(parts.image_vocab_size, device=device)).__getitem__
        # The residual stream keeps the prefix's dtype: under autocast some embeddings are rounded.
        self.embed = lambda tokens: embed(tokens).to(prefix.dtype)
        self.mask = None
        if min(lengths) < columns:
            self.mask = _padding_mask(self.position, columns, steps, prefix.dtype)

    def logits(self) -> Tensor:
        with self.computing():
            hidden = self.before_head(self.hidden)
        if self.guidance != 1.0:
            cond, uncond = hidden.chunk(2)
            hidden = guided(cond, uncond, self.guidance)
        return self.head(hidden)

    def advance(self, tokens: Tensor) -> None:
        mask = None if self.mask is None else self.mask[..., : self.cache.length + 1]
        with self.computing():
            embeddings = self.embed(tokens)
            if self.guidance != 1.0:
                embeddings = embeddings.repeat(2, 1)
            self.hidden = self.step(embeddings, self.position, self.cache, mask)
        self.position = self.position + 1

    def keep(self, rows: Tensor) -> None:
        if self.guidance != 1.0:
            rows = torch.cat([rows, rows + self.hidden.shape[0] // 2])
        self.cache.keep(rows)
        self.hidden = self.hidden[rows]
        self.position = self.position[rows]
        self.mask = None if self.mask is None else self.mask[rows]


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


def _padding_mask(length: Tensor, columns: int, steps: int, dtype: torch.dtype) -> Tensor:
    """`[R, 1, 1, P + steps - 1]`: each row sees its own prefix and all that it wrote."""
    column = torch.arange(columns + steps - 1, device=length.device)
    unseen = (column >= length.unsqueeze(1)) & (column < columns)
    mask = torch.zeros(unseen.shape, dtype=dtype, device=length.device)
    mask.masked_fill_(unseen, torch.finfo(dtype).min)
    return mask[:, None, None, :]
