"""What the CUDA forward keeps for its backward in the place of a product: csrc/cuda/kept_exps.h.

16 bits for each logit of the first tokens, as many as `suder_ext.set_workspace` has room for; the
backward computes the others again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext import _workspace
from suder_ext._ops.cuda import call
from suder_ext._ops.cuda.tensor_cores import way_of
from suder_ext._ops.cuda.tiles import round_up

MAXIMUM_OF = 64  # columns, as in kept_exps.h
# Where not all tokens fit, a multiple of the rows that blocks and products take at a time.
WHOLE_ROWS = 256


def floats_of(vocab: int) -> int:
    """For a token: its exponentials, their maxima, and log p of the target."""
    return round_up(vocab, 8) // 2 + -(-vocab // MAXIMUM_OF) + 1


def room(hidden: Tensor, weight: Tensor, most_on_cpu: int) -> int:
    """Floats to keep for as many tokens as fit."""
    way = way_of(hidden, weight)
    if way == "tiles" or not _keeps(hidden.get_device(), way):
        return 0
    each = floats_of(weight.shape[0])
    fit, tokens = _workspace.kept_bytes // 4 // each, hidden.shape[0]
    return each * (tokens if tokens <= fit else fit // WHOLE_ROWS * WHOLE_ROWS)


def _keeps(index: int, way: str) -> bool:
    """Whether this way's kernel has registers left for it on a device."""
    if index < 0:  # emulated
        return bool(call.kernels.fused_forward_keeps(way == "wgmma"))  # type: ignore[union-attr]
    if not torch.cuda.is_available():  # without data, for tracing
        return True
    with torch.cuda.device(index):
        return bool(call.kernels.fused_forward_keeps(way == "wgmma"))  # type: ignore[union-attr]


vars(_keeps)["_dynamo_marked_constant"] = True  # as in cards.py


def tokens_in(kept: Tensor, hidden: Tensor, weight: Tensor) -> int:
    """How many of the tokens have room there."""
    return min(kept.shape[0] // floats_of(weight.shape[0]), hidden.shape[0])
