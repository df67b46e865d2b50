"""Some rows of a linear head: what they add to each token's softmax, and their gradients under it.

A `Shard` knows its own rows only. `merge` puts the parts of all shards together by the rule of
csrc/common/online_lse.h; given the log-sum-exp and entropy of the whole, a shard's gradients are
those of its part of it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

IGNORED = -1  # the target of a token that takes no part

Grads = tuple[Tensor | None, Tensor | None, Tensor | None]


class Head(NamedTuple):
    """The rows of a shard, the tokens, and how a product becomes a logit."""

    hidden: Tensor
    """`[T, D]`"""
    weight: Tensor
    """`[V, D]`, V of them here."""
    bias: Tensor | None
    target: Tensor
    """int64 `[T]` in [0, V), or IGNORED."""
    temperature: float
    softcap: float | None


class Shard(Protocol):
    """How a device goes through the rows that it has."""

    def forward(
        self, head: Head, with_entropy: bool, keep_logits: int, with_argmax: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """float64 `[T, 4]`: the largest final logit z, sum exp(z - largest), the sum of
        exp(z - largest) (z - largest) if the entropy is wanted, z of the target; what was kept; and
        the first of the shard's rows with its largest logit, int64 `[T]`, or nothing.
        """

    def backward(
        self,
        head: Head,
        upstream: Grads,
        lse: Tensor,
        entropy: Tensor,
        kept: Tensor,
        needs: tuple[bool, ...],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of hidden, float32 and no more than a part of a sum, and of weight and bias, rounded."""


# Device type -> its kernels; the reference does for the others.
shards: dict[str, Shard] = {}


class Merged(NamedTuple):
    """Of a whole vocabulary, float64 `[T]` each."""

    highest: Tensor
    total: Tensor
    weighted: Tensor

    def lse(self) -> Tensor:
        return self.highest + self.total.log()

    def entropy(self) -> Tensor:
        return self.total.log() - self.weighted / self.total

    def logprob(self, z: Tensor) -> Tensor:
        """log p of a logit: the largest is subtracted first, which keeps all digits."""
        return ((z - self.highest) - self.total.log()).clamp(max=0.0)


def merge(parts: Tensor) -> Merged:
    """Parts `[shards, T, 4]` in the order of the shards; float64, in which no logit is rounded."""
    first, *others = (Merged(*part.unbind(-1)[:3]) for part in parts)
    for other in others:
        first = _merge(first, other)
    return first


def _merge(a: Merged, b: Merged) -> Merged:
    swap = b.highest > a.highest
    high, low = (
        Merged(*(torch.where(swap, x, y) for x, y in zip(*pair, strict=True)))
        for pair in ((b, a), (a, b))
    )
    nothing = low.highest == -torch.inf  # a total of 0, or NaN that must not be lost
    shift = (low.highest - high.highest).masked_fill(nothing, 0.0)
    scale = shift.exp()
    weighted = ((low.weighted + low.total * shift) * scale).masked_fill(nothing, 0.0)
    return Merged(high.highest, high.total + low.total * scale, high.weighted + weighted)
