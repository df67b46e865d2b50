"""The gradient of logits in 16 bits, for a slice of the vocabulary and a chunk of the tokens.

From what the forward kept, in one read and one write of 16 bits each; else by the product again,
whose logits stay in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from suder_ext._ops.cuda import call, kept_exps
from suder_ext._ops.cuda.call import DTYPE_CODES, floats, part, run
from suder_ext._ops.cuda.tensor_cores import bias_arguments, for_tensor_cores
from suder_ext._ops.cuda.tiles import round_up

# 256 MiB of gradients of logits. A chunk's tokens are the depth of the weight's products, a slice's
# columns that of the hidden states': the longer, the fewer times float32 sums are read and written.
CHUNK_TOKENS = 8192
SLICE_COLUMNS = 16384


@dataclass(frozen=True)
class LogitGradients:
    """Inputs of a forward on tensor cores, what it left, and the gradients that come from above."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    target: Tensor
    lse: Tensor
    entropy: Tensor
    kept: Tensor
    grads: Sequence[Tensor | None]
    settings: dict[str, Any]
    hopper: bool

    @classmethod
    def of(
        cls,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        *rest: Any,
        need_weight: bool,
    ) -> LogitGradients:
        """Of any hidden, weight and target."""
        if need_weight:  # the gradient 0 of an ignored row, times a hidden state that may be NaN
            ignored = target == rest[-2]["ignore_index"]
            hidden = hidden.masked_fill(ignored.unsqueeze(1), 0.0)
        taken = for_tensor_cores(hidden), for_tensor_cores(weight), bias, target.contiguous()
        return cls(*taken, *rest)

    @property
    def kept_tokens(self) -> int:
        return kept_exps.tokens_in(self.kept, self.hidden, self.weight)

    def slices(self) -> list[slice]:
        """Of the vocabulary."""
        return parts(0, self.weight.shape[0], SLICE_COLUMNS)

    def chunks(self) -> list[slice]:
        """Of the tokens: all or none of a chunk were kept."""
        first = parts(0, self.kept_tokens, CHUNK_TOKENS)
        return first + parts(self.kept_tokens, self.hidden.shape[0], CHUNK_TOKENS)

    def memory(self, need_products: bool, need_bias: bool) -> tuple[Tensor, Tensor]:
        """For a chunk and slice: gradients of logits, and sums of their columns over some rows."""
        height = min(CHUNK_TOKENS, self.hidden.shape[0])
        width = round_up(min(SLICE_COLUMNS, self.weight.shape[0]), 8)
        sums = max(_parts_of_sums(height, kept, self.hopper) for kept in (False, True))
        grad = floats(self.hidden, height * need_products, width, dtype=self.hidden.dtype)
        return grad, floats(self.hidden, sums * need_bias, width)

    def write(
        self, rows: slice, columns: slice, memory: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The gradients and sums of this chunk and slice, written to the beginning of `memory`."""
        grad, sums = memory
        count, size = rows.stop - rows.start, columns.stop - columns.start
        kept = rows.stop <= self.kept_tokens
        run(
            "kept_grad" if kept else "fused_grad",
            self.hidden,
            **(self._kept if kept else self._again)(rows, columns),
            dtype=DTYPE_CODES[self.hidden.dtype],
            tokens=count,
            cols=size,
            first_column=columns.start,
            vocab=self.weight.shape[0],
            target=self.target[rows],
            **self.settings,
            lse=self.lse[rows],
            entropy=self.entropy[rows] if self.grads[2] is not None else None,
            grad_logprob=part(self.grads[0], rows),
            grad_lse=part(self.grads[1], rows),
            grad_entropy=part(self.grads[2], rows),
            grad=grad if grad.shape[0] else None,
            grad_stride=grad.shape[1],
            column_sums=sums if sums.shape[0] else None,
        )
        return grad[:count, :size], sums[: _parts_of_sums(count, kept, self.hopper), :size]

    def _kept(self, rows: slice, columns: slice) -> dict[str, Any]:
        return {"kept": self.kept, "kept_tokens": self.kept_tokens, "first_token": rows.start}

    def _again(self, rows: slice, columns: slice) -> dict[str, Any]:
        return {
            "hidden": self.hidden[rows],
            "features": self.hidden.shape[1],
            "hidden_stride": self.hidden.stride(0),
            "weight": self.weight[columns],
            "weight_stride": self.weight.stride(0),
            **bias_arguments(part(self.bias, columns), self.hidden.dtype),
            "hopper": self.hopper,
        }


def parts(start: int, stop: int, step: int) -> list[slice]:
    """Slices of `step` and the rest, in order."""
    return [slice(first, min(first + step, stop)) for first in range(start, stop, step)]


def _parts_of_sums(tokens: int, kept: bool, hopper: bool) -> int:
    """How many rows of column sums a kernel leaves for so many tokens."""
    assert call.kernels is not None
    if kept:
        return int(call.kernels.kept_grad_row_parts(tokens))
    return int(call.kernels.fused_grad_row_parts(tokens, hopper))
