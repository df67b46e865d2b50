"""A shard of the linear head on CUDA: tile by tile, whatever the dtype and the card."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext._ops.cuda.call import floats, integers
from suder_ext._ops.cuda.linear_logprob import argmax_of, swept, tiled_gradients
from suder_ext._ops.cuda.tiles import Tiles, options
from suder_ext._ops.head_shards import IGNORED, Grads, Head


class CudaShard:
    """See `head_shards.Shard`. Nothing is kept: the backward makes each tile again."""

    def forward(
        self, head: Head, with_entropy: bool, keep_logits: int, with_argmax: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        tiles = Tiles(*head[:4], shard=True)
        # Not the last columns of the vocabulary: the state stays a state.
        state, *_ = swept(tiles, options(IGNORED, *head[4:]), with_entropy, ends=False)
        # The sums are of scaled differences; the logits are not scaled yet. The kernel's factor is
        # a float32.
        inverse = float(1.0 / torch.tensor(head.temperature, dtype=torch.float32))
        partial = state.double()
        partial[:, 0] *= inverse
        partial[:, 3] *= inverse
        argmax = argmax_of(*head[:3]) if with_argmax else integers(tiles.padded, 0)
        return partial, floats(tiles.padded, 0), argmax

    def backward(
        self,
        head: Head,
        upstream: Grads,
        lse: Tensor,
        entropy: Tensor,
        kept: Tensor,
        needs: tuple[bool, ...],
    ) -> tuple[Tensor, Tensor, Tensor]:
        settings = IGNORED, *head[4:]
        return tiled_gradients(upstream, *head[:4], lse, entropy, settings, needs, shard=True)
