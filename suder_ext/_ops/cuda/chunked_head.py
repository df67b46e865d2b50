"""The linear head on CUDA for one chunk of tokens after another."""

from __future__ import annotations

import functools

from torch import Tensor

from suder_ext._ops import pair_chunks
from suder_ext._ops.cuda import tiles
from suder_ext._ops.cuda.call import Ops, floats
from suder_ext._ops.cuda.linear_logprob import add_gradients, stats_of
from suder_ext._ops.cuda.tiles import Tiles, options, round_up

# 512 MiB of float32 logits: one height of tiles of the largest vocabulary in use (Gemma's 262144),
# seven pairs of 576 image tokens of 16384.
WORKSPACE = 128 * 2**20


class ChunkedHead:
    """See `pair_chunks.Head`. Gradients add up in float32, and are left in it.

    Always tile by tile: logits that are kept need no product in the backward, fused or not.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        settings: tuple[int, float, float | None],
        needs: tuple[bool, ...],
    ) -> None:
        need_hidden, need_weight, need_bias = needs
        if need_weight:  # the gradient 0 of an ignored row, times a hidden state that may be NaN
            hidden = hidden.masked_fill((target == settings[0]).unsqueeze(1), 0.0)
        self.hidden, self.head, self.target = hidden, (weight, bias), target
        self.settings = options(*settings)
        row = round_up(weight.shape[0], 8)
        self.most_tokens = WORKSPACE // row // tiles.TILE_TOKENS * tiles.TILE_TOKENS
        height = min(self.most_tokens, round_up(hidden.shape[0], tiles.TILE_TOKENS))
        self.logits = floats(hidden, height, row)
        self.grad_hidden = floats(hidden, *(hidden.shape if need_hidden else (0,)))
        self.grad_weight = floats(hidden, *(weight.shape if need_weight else (0,))).zero_()
        self.grad_bias = floats(hidden, weight.shape[0] * need_bias).zero_()
        self.needs = needs

    def logprob(self, tokens: slice) -> Tensor:
        height = round_up(tokens.stop - tokens.start, tiles.TILE_TOKENS)
        kept = self.logits[:height] if height <= self.most_tokens else None
        self.tiles = Tiles(self.hidden[tokens], *self.head, self.target[tokens], kept)
        logprob, self.lse, self.entropy = stats_of(self.tiles, self.settings, with_entropy=False)
        return logprob

    def add_gradients(self, tokens: slice, grad_logprob: Tensor) -> None:
        need_hidden, need_weight, need_bias = self.needs
        sums = None
        if need_hidden:
            sums = floats(self.hidden, *self.tiles.padded.shape).zero_()
        for columns in self.tiles.columns():
            add_gradients(
                self.tiles,
                columns,
                (grad_logprob, None, None),
                self.lse,
                self.entropy,
                self.settings,
                sums,
                self.grad_weight[columns] if need_weight else None,
                self.grad_bias[columns] if need_bias else None,
            )
        if sums is not None:
            self.grad_hidden[tokens] = sums[: self.tiles.tokens]

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.grad_hidden, self.grad_weight, self.grad_bias


OPS: Ops = {
    "linear_preference_loss": functools.partial(pair_chunks.linear_preference_loss, ChunkedHead)
}
