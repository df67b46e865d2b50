"""One token at a time for many sequences: prefixes read once, then copied to their candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from suder.models.base import Direction
from suder.models.janus_parts import Parts


class KeyValues:
    """Keys and values of every layer in memory allocated once.

    transformers' attention layers call `update(key, value, layer, ...)` and attend to what it
    returns. Its own static cache returns the whole buffer and needs a mask over it; this one
    returns the part in use.
    """

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.length = 0

    def update(
        self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if layer == len(self.keys):  # the prefixes' pass
            self.keys.append(key)
            self.values.append(value)
            return key, value
        end = self.length + key.shape[2]
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.length : end] = key
        values[:, :, self.length : end] = value
        return keys[:, :, :end], values[:, :, :end]

    def expand(self, rows: Tensor, capacity: int) -> None:
        """Row r becomes a copy of row `rows[r]`, with room for `capacity` positions in all."""

        def widened(old: Tensor) -> Tensor:
            new = old.new_empty(len(rows), old.shape[1], capacity, old.shape[3])
            new[:, :, : old.shape[2]] = old.index_select(0, rows)
            return new

        self.length = self.keys[0].shape[2]
        self.keys = [widened(key) for key in self.keys]
        self.values = [widened(value) for value in self.values]

    def keep(self, rows: Tensor) -> None:
        self.keys = [key.index_select(0, rows) for key in self.keys]
        self.values = [value.index_select(0, rows) for value in self.values]


class Head:
    """The last linear layer in float32: no logit is rounded to 16 bits before it is used."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.float_bias = None if bias is None else bias.float()
        self.native = weight.dtype != torch.float32 and weight.is_cuda
        # On a GPU the product of 16-bit factors can be written out in float32 as it is summed;
        # elsewhere the weight is converted, once for all steps.
        self.weight = weight if self.native else weight.float()

    def __call__(self, hidden: Tensor) -> Tensor:
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
    ) -> None:
        self.language_model = parts.language_model
        self.embed = parts.target_embedding(direction)
        self.before_head = parts.before_head(direction)
        self.head = Head(*parts.last_layer(direction))
        self.guidance = guidance
        self.cache = KeyValues()
        device, columns = prefix.device, prefix.shape[1]
        length = torch.tensor(lengths, device=device)
        rows = rows.to(device)
        hidden = self._read_prefixes(prefix)
        self.hidden = hidden[torch.arange(len(lengths), device=device), length - 1][rows]
        # The last token written is never read.
        self.cache.expand(rows, columns + steps - 1)
        self.position = length[rows].unsqueeze(1)
        self.mask = self._padding_mask(self.position, columns, steps, prefix.dtype)

    def logits(self) -> Tensor:
        hidden = self.before_head(self.hidden)
        if self.guidance != 1.0:
            cond, uncond = hidden.float().chunk(2)
            hidden = (uncond + self.guidance * (cond - uncond)).to(hidden.dtype)
        return self.head(hidden)

    def advance(self, tokens: Tensor) -> None:
        if self.guidance != 1.0:
            tokens = tokens.repeat(2)
        end = self.cache.length + 1
        # The mask goes in by hand and in four dimensions, which transformers uses as it is;
        # the cache goes by position, since its keyword is being renamed.
        output = self.language_model(
            None,
            self.mask[..., :end],
            self.position,
            self.cache,
            self.embed(tokens).unsqueeze(1),
            use_cache=True,
        )
        self.cache.length = end
        self.position = self.position + 1
        self.hidden = output.last_hidden_state[:, 0]

    def keep(self, rows: Tensor) -> None:
        if self.guidance != 1.0:
            rows = torch.cat([rows, rows + self.hidden.shape[0] // 2])
        self.cache.keep(rows)
        self.hidden = self.hidden[rows]
        self.position = self.position[rows]
        self.mask = self.mask[rows]

    def _read_prefixes(self, prefix: Tensor) -> Tensor:
        columns = prefix.shape[1]
        hidden_later = torch.ones(columns, columns, dtype=torch.bool, device=prefix.device).triu_(1)
        mask = torch.zeros(1, 1, columns, columns, dtype=prefix.dtype, device=prefix.device)
        mask.masked_fill_(hidden_later, torch.finfo(prefix.dtype).min)
        positions = torch.arange(columns, device=prefix.device).unsqueeze(0)
        output = self.language_model(None, mask, positions, self.cache, prefix, use_cache=True)
        last: Tensor = output.last_hidden_state
        return last

    @staticmethod
    def _padding_mask(length: Tensor, columns: int, steps: int, dtype: torch.dtype) -> Tensor:
        """`[R, 1, 1, P + steps - 1]`: each row sees its own prefix and all that it wrote."""
        column = torch.arange(columns + steps - 1, device=length.device)
        unseen = (column >= length) & (column < columns)
        mask = torch.zeros(unseen.shape, dtype=dtype, device=length.device)
        mask.masked_fill_(unseen, torch.finfo(dtype).min)
        return mask[:, None, None, :]
