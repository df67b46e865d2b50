"""Keys and values while writing: a prefix once for all that continue it, their own beside it.

A query attends to both parts, each where it lies; the weights are one softmax over both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suder.models.precision import exactly


class KeyValues:
    """Of every layer: prefixes `[C, H, P, d]`, and what C * n sequences wrote `[C * n, H, S, d]`.

    transformers' attention layers call `update(key, value, layer, ...)` while the prefixes are
    read; after `plan`, `make_room` allocates all the rest, once. What changes from step to step is
    in tensors, which keep their shapes and places.

    Args:
        products: dtype that attention multiplies in.

    Attributes:
        written: int64 `[1]`, tokens written by each sequence.
        mask: `[C, 1, 1, 1, P + S]`, added to scores: -inf on the padding of shorter prefixes, and
            on what is not written yet.
    """

    written: Tensor
    mask: Tensor

    def __init__(self, products: torch.dtype) -> None:
        self.products = products
        self.rounds = products.itemsize == 2
        self.columns = -1
        self.prefix: list[tuple[Tensor, Tensor]] = []
        self.own: list[tuple[Tensor, Tensor]] = []

    def update(
        self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        assert layer == len(self.prefix), "prefixes are read in one pass"
        self.prefix.append((self._rounded(key).contiguous(), self._rounded(value).contiguous()))
        return key, value

    def plan(self, length: Tensor, n: int, steps: int) -> None:
        """Room for n sequences of `steps` tokens behind each prefix, whose lengths are `[C]`."""
        like = self.prefix[0][0]
        count, heads, past, width = like.shape
        column = torch.arange(past + steps, device=like.device)
        wide = torch.promote_types(like.dtype, torch.float32)
        self.mask = torch.zeros(count, 1, 1, 1, past + steps, dtype=wide, device=like.device)
        unseen = column >= length.unsqueeze(1)
        self.mask.masked_fill_(unseen[:, None, None, None], -torch.inf)
        self.written = torch.zeros(1, dtype=torch.int64, device=like.device)
        # Zeros, for what is masked is multiplied all the same; as yet a single one.
        zeros = like.new_zeros(()).expand(count * n, heads, steps, width)
        self.own = [(zeros, zeros) for _ in self.prefix]

    def make_room(self) -> None:
        self.own = [(keys.contiguous(), values.contiguous()) for keys, values in self.own]

    def begin(self) -> None:
        """A token more can be seen from now on: the one that `append` is about to write."""
        self.mask[..., self.prefix[0][0].shape[2] :].index_fill_(4, self.written, 0.0)

    def append(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Writes `[R, H, d]` behind what is written."""
        keys, values = self.own[layer]
        keys.index_copy_(2, self.written, self._rounded(key).unsqueeze(2))
        values.index_copy_(2, self.written, self._rounded(value).unsqueeze(2))

    def look_at(self, columns: int) -> None:
        """From now on attention runs over the first `columns` own tokens.

        Only views are made here: the matrices that products take.
        """
        if columns == self.columns:
            return
        self.columns = columns
        past, width = self.prefix[0][0].shape[2:]
        self.mask_seen = self.mask[..., : past + columns]
        self.seen = [
            (
                keys.view(-1, past, width).mT,
                values.view(-1, past, width),
                own_keys.flatten(0, 1)[:, :columns].mT,
                own_values.flatten(0, 1)[:, :columns],
            )
            for (keys, values), (own_keys, own_values) in zip(self.prefix, self.own, strict=True)
        ]

    def attend(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """`[R, A * d]` of queries `[R, A, d]`, A a multiple of H; float32 at least."""
        if not self.rounds:
            return self._attend(layer, query * scale, None)
        with exactly(query.device):
            return self._attend(layer, self._rounded(query), scale)

    def _attend(self, layer: int, query: Tensor, scale: float | None) -> Tensor:
        keys, values, own_keys, own_values = self.seen[layer]
        count, heads, past, _ = self.prefix[layer][0].shape
        rows, queries, width = query.shape
        group = queries // heads  # of queries that share a head's keys
        by_row = count, rows // count, heads, group, -1
        by_prefix = count, heads, rows // count, group, -1
        # A prefix's queries are one matrix, of all that continue it; a sequence's own another.
        shared = query.view(by_row).transpose(1, 2).reshape(len(keys), -1, width)
        before = _product(shared, keys).view(by_prefix).transpose(1, 2)
        after = _product(query.reshape(rows * heads, group, width), own_keys).view(by_row)
        score = torch.cat([before, after], -1)
        # The mask is 0 or -inf, so this rounds as a product and a sum would.
        score = torch.add(self.mask_seen, score, alpha=1.0 if scale is None else scale)
        total = None
        if self.rounds:
            # What fused kernels round: the weights before they are divided by their sum.
            exact = score.sub_(score.amax(-1, keepdim=True)).exp_()
            total = exact.sum(-1, keepdim=True)
            weight = self._rounded(exact)
        else:
            weight = score.softmax(-1)
        of_prefix, of_own = weight.split((past, self.columns), -1)
        of_prefix = of_prefix.transpose(1, 2).reshape(len(keys), -1, past)
        before = _product(of_prefix, values).view(by_prefix).transpose(1, 2)
        after = _product(of_own.view(rows * heads, group, -1), own_values).view(by_row)
        seen = after + before
        return (seen if total is None else seen / total).reshape(rows, -1)

    def take(self, conditions: Tensor, rows: Tensor) -> KeyValues:
        """Another, of sequences `rows[R']` and the prefixes `conditions[C']` they continue."""
        taken = KeyValues(self.products)
        taken.prefix = [(key[conditions], value[conditions]) for key, value in self.prefix]
        taken.own = [(key[rows], value[rows]) for key, value in self.own]
        taken.mask, taken.written = self.mask[conditions], self.written.clone()
        return taken

    def tensors(self) -> list[Tensor]:
        """All that a step reads or writes here."""
        parts = [part for pair in (*self.prefix, *self.own) for part in pair]
        return [self.written, self.mask, *parts]

    def _rounded(self, tensor: Tensor) -> Tensor:
        """As attention's products would at every step.

        The CPU would give a product of 16-bit factors in 16 bits, so there the rounded ones are
        kept in float32.
        """
        if not self.rounds:
            return tensor
        tensor = tensor.to(self.products)
        return tensor if tensor.is_cuda else tensor.float()


def _product(left: Tensor, right: Tensor) -> Tensor:
    """At least float32, as it is summed."""
    if left.dtype.itemsize == 2:
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left, right)
