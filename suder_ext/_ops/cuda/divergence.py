"""linear_kl on CUDA: tiles of both heads' logits by cuBLAS, and one read of each pair of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from suder_ext._ops.cuda.call import Ops, floats, run
from suder_ext._ops.cuda.linear_logprob import add_products
from suder_ext._ops.cuda.tiles import Tiles, options

ONLINE_FLOATS, STATE_FLOATS = 8, 4  # a row's, between tiles and for the backward: csrc/cuda/kl.h


def _pair(policy: Tiles, reference: Tiles, rows: slice, columns: slice) -> dict[str, Any]:
    """Both products of a tile, and the arguments that tell a kernel of them."""
    tile, arguments = policy.compute(rows, columns)
    ref_tile, ref_arguments = reference.compute(rows, columns)
    return {
        "logits": tile,
        "ref_logits": ref_tile,
        "rows": tile.shape[0],
        "cols": tile.shape[1],
        "stride": tile.stride(0),
        "ref_stride": ref_tile.stride(0),
        "tokens": arguments["tokens"],
        "bias": arguments["bias"],
        "ref_bias": ref_arguments["bias"],
        "target": arguments["target"],
    }


def linear_kl(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    ref_bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    keep_logits: int,
) -> tuple[Tensor, Tensor, Tensor]:
    policy = Tiles(hidden, weight, bias, target)
    reference = Tiles(ref_hidden, ref_weight, ref_bias, target)
    kl, state = floats(hidden, policy.tokens), floats(hidden, policy.tokens, STATE_FLOATS)
    online = floats(hidden, policy.tokens, ONLINE_FLOATS)
    for columns in policy.columns():
        for rows in policy.rows():
            run(
                "kl_stats",
                hidden,
                **_pair(policy, reference, rows, columns),
                **options(ignore_index, temperature, softcap),
                online=online[rows],
                first=columns.start == 0,
                last=columns.stop == policy.vocab,
                kl=kl[rows],
                state=state[rows],
            )
    return kl, state, floats(hidden, 2 * keep_logits)


def linear_kl_backward(
    grad_kl: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    ref_bias: Tensor | None,
    target: Tensor,
    kl: Tensor,
    state: Tensor,
    logits: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    needs: Sequence[bool],
) -> tuple[Tensor, ...]:
    """Each pair of tiles again, turned into gradients in place, then the products asked for."""
    ignored = target == ignore_index
    policy = _Side(hidden, weight, bias, target, ignored, needs[:3])
    reference = _Side(ref_hidden, ref_weight, ref_bias, target, ignored, needs[3:])
    grad_kl = grad_kl.contiguous()
    for columns in policy.tiles.columns():
        policy.begin(columns)
        reference.begin(columns)
        for rows in policy.tiles.rows():
            arguments = _pair(policy.tiles, reference.tiles, rows, columns)
            run(
                "kl_grad",
                hidden,
                **arguments,
                **options(ignore_index, temperature, softcap),
                need_policy=policy.wanted,
                need_reference=reference.wanted,
                grad_kl=grad_kl[rows],
                kl=kl[rows],
                state=state[rows],
            )
            policy.add(rows, columns, arguments["logits"])
            reference.add(rows, columns, arguments["ref_logits"])
        policy.end(columns)
        reference.end(columns)
    return *policy.gradients(), *reference.gradients()


class _Side:
    """The gradients of one head: float32 sums, those of the weight a tile's columns at a time."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        ignored: Tensor,
        needs: Sequence[bool],
    ) -> None:
        self.need_hidden, self.need_weight, self.need_bias = needs
        self.wanted = any(needs)
        if self.need_weight:  # the gradient 0 of an ignored row, times a state that may be NaN
            hidden = hidden.masked_fill(ignored.unsqueeze(1), 0.0)
        self.tiles = Tiles(hidden, weight, bias, target)
        height, depth = self.tiles.padded.shape
        self.d_hidden = floats(hidden, *((height, depth) if self.need_hidden else (0,))).zero_()
        shape = weight.shape if self.need_weight else (0,)
        self.d_weight = floats(weight, *shape, dtype=weight.dtype).zero_()
        self.d_bias = floats(hidden, self.tiles.vocab * self.need_bias).zero_()
        self.weight_tile = self.d_hidden

    def begin(self, columns: slice) -> None:
        size = (columns.stop - columns.start) * self.need_weight
        self.weight_tile = floats(self.d_hidden, size, self.tiles.padded.shape[1]).zero_()

    def add(self, rows: slice, columns: slice, grad: Tensor) -> None:
        if not self.wanted:
            return
        add_products(
            self.tiles,
            rows,
            columns,
            grad,
            self.d_hidden if self.need_hidden else None,
            self.weight_tile if self.need_weight else None,
            self.d_bias[columns] if self.need_bias else None,
        )

    def end(self, columns: slice) -> None:
        if self.need_weight:
            self.d_weight[columns].copy_(self.weight_tile)

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        dtype = self.tiles.weight.dtype
        d_hidden = self.d_hidden[: self.tiles.tokens] if self.need_hidden else self.d_hidden
        return d_hidden.to(dtype), self.d_weight, self.d_bias.to(dtype)


OPS: Ops = {"linear_kl": linear_kl, "linear_kl_backward": linear_kl_backward}
