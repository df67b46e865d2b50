"""Logits tile by tile: cuBLAS products, through torch, into one piece of memory that stays in L2.

A tile is always TILE_TOKENS high, the rest of the last one padding: the same product must run the
same cuBLAS kernel whatever the batch, or a token's bits would depend on its company. Results are
float32 for every input dtype. Products of float32 inputs follow `torch.backends.cuda.matmul`: leave
TF32 off there for float32 accuracy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suder_ext._ops.cuda.call import DTYPE_CODES, floats, rows, vector

# 33.5 MB of float32 logits: two thirds of an H100's L2, large enough a product to hide its launch.
TILE_TOKENS = 512
TILE_VOCAB = 16384


def round_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step


def product(out: Tensor, a: Tensor, b: Tensor, *, add: bool = False) -> None:
    """out = a @ b, or out += a @ b; float32 sums and result for any dtype of a and b."""
    if a.dtype == torch.float32:
        torch.addmm(out, a, b, out=out) if add else torch.mm(a, b, out=out)
    elif not a.is_cuda:  # emulated: torch has mixed products on CUDA only
        product(out, a.float(), b.float(), add=add)
    elif add:
        torch.addmm(out, a, b, out_dtype=torch.float32, out=out)
    else:
        torch.mm(a, b, out_dtype=torch.float32, out=out)


class Tiles:
    """Walks over the logits of `hidden @ weight.T`; each tile overwrites the one before."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        *,
        shard: bool = False,
    ) -> None:
        self.tokens, self.vocab = hidden.shape[0], weight.shape[0]
        # A kernel that has a whole row before it makes its probabilities add up to 1, which those
        # of a shard do not: there are more.
        self.least_vocab = self.vocab + shard
        self.weight, self.target = rows(weight), target.contiguous()
        self.bias = None if bias is None else bias.to(torch.float32).contiguous()
        self.padded = hidden
        height = round_up(self.tokens, TILE_TOKENS)
        if height != self.tokens or not hidden.is_contiguous() or hidden.data_ptr() % 16:
            self.padded = torch.zeros(
                height, hidden.shape[1], dtype=hidden.dtype, device=hidden.device
            )
            self.padded[: self.tokens].copy_(hidden)
        # Rows 16-byte aligned, in float32 and as 16-bit elements.
        self.memory = floats(hidden, TILE_TOKENS, round_up(min(TILE_VOCAB, self.vocab), 8))

    def columns(self) -> list[slice]:
        """The parts of the vocabulary, in order."""
        starts = range(0, self.vocab, TILE_VOCAB)
        return [slice(v, min(v + TILE_VOCAB, self.vocab)) for v in starts]

    def rows(self) -> list[slice]:
        """The parts of the batch, in order."""
        starts = range(0, self.tokens, TILE_TOKENS)
        return [slice(t, min(t + TILE_TOKENS, self.tokens)) for t in starts]

    def padded_rows(self, rows: slice) -> Tensor:
        """TILE_TOKENS hidden states, zeros past the last token."""
        return self.padded[rows.start : rows.start + TILE_TOKENS]

    def compute(self, rows: slice, columns: slice) -> tuple[Tensor, dict[str, Any]]:
        """The products `[TILE_TOKENS, columns]`, and the arguments that tell a kernel of them."""
        tile = self.memory[:, : columns.stop - columns.start]
        product(tile, self.padded_rows(rows), self.weight[columns].t())
        return tile, {
            **tile_arguments(tile, self.target[rows]),
            "first_column": columns.start,
            "bias": None if self.bias is None else self.bias[columns],
            "vocab": self.least_vocab,
        }

    @staticmethod
    def narrowed(tile: Tensor, dtype: torch.dtype) -> Tensor:
        """The tile's own memory seen as elements of a gradient's dtype, row upon row."""
        return tile if dtype == torch.float32 else tile.view(dtype)[:, : tile.shape[1]]


def tile_arguments(logits: Tensor, target: Tensor) -> dict[str, Any]:
    """How a kernel is told of a matrix of logits, by default a whole one."""
    return {
        "dtype": DTYPE_CODES[logits.dtype],
        "logits": logits,
        "rows": logits.shape[0],
        "cols": logits.shape[1],
        "stride": logits.stride(0),
        "tokens": target.shape[0],
        "first_column": 0,
        "bias": None,
        "target": target,
        "vocab": logits.shape[1],
    }


def options(ignore_index: int, temperature: float, softcap: float | None) -> dict[str, Any]:
    """The settings of the softmax, as kernels take them."""
    return {
        "ignore_index": ignore_index,
        "temperature": temperature,
        "softcap": softcap or 0.0,
    }


def results(like: Tensor, tokens: int, with_entropy: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Room for logprob, lse and entropy."""
    return floats(like, tokens), floats(like, tokens), floats(like, tokens * with_entropy)


def upstream(*grads: Tensor | None) -> list[Tensor | None]:
    """Upstream gradients as contiguous vectors."""
    return [vector(grad) for grad in grads]
