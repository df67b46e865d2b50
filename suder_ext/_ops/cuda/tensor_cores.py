"""The way through the linear head: which kernels take which inputs, on which card.

    wgmma   by wgmma and TMA; compute capability 9.0
    mma     by mma.sync; every card from 8.0 on
    tiles   cuBLAS products of tiles and our row kernels; any dtype and width

All give what the op promises; which is fastest depends on the card alone. SUDER_CUDA_HEAD takes one
of them for tests and benchmarks, "auto" is the default.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from suder_ext._ops.cuda import call
from suder_ext._ops.cuda.call import DTYPE_CODES

WAYS = ("auto", "tiles", "mma", "wgmma")


def _chosen() -> str:
    way = os.environ.get("SUDER_CUDA_HEAD", "auto")
    if way not in WAYS:
        raise ValueError(f"SUDER_CUDA_HEAD is {way!r}; it takes one of {', '.join(WAYS)}")
    return way


chosen = _chosen()


def way_of(hidden: Tensor, weight: Tensor) -> str:
    """tiles, mma or wgmma. Asks nothing that differs from batch to batch."""
    if not _tensor_cores_take(hidden, weight):
        return "tiles"
    return _best(hidden.get_device()) if chosen == "auto" else chosen


def _tensor_cores_take(hidden: Tensor, weight: Tensor) -> bool:
    depth = hidden.shape[1]
    sizes = depth > 0 and depth % 8 == 0 and weight.shape[0] > 0
    return sizes and hidden.dtype in (torch.bfloat16, torch.float16)


def _best(index: int) -> str:
    """By the compute capability of a CUDA device, which torch looks up once."""
    if index < 0 or not torch.cuda.is_available():  # emulated; without data, for tracing
        return "mma"
    major, minor = torch.cuda.get_device_capability(index)
    # On an H200, 8192 x 2048 x 16384: wgmma 1.2, tiles 1.8, mma 2.7 times a bare product.
    if (major, minor) == (9, 0):
        return "wgmma" if getattr(call.kernels, "hopper", False) else "tiles"
    # Of what these cards' products reach, mma.sync has a small part only (data sheets; not run).
    return "tiles" if major == 10 else "mma"


# For torch.compile, as in cards.py.
vars(_best)["_dynamo_marked_constant"] = True


def for_tensor_cores(matrix: Tensor) -> Tensor:
    """The matrix with rows that 16-byte copies and TMA can take (copied if they are not)."""
    aligned = matrix.stride(1) == 1 and matrix.stride(0) % 8 == 0 and matrix.data_ptr() % 16 == 0
    apart = matrix.stride(0) >= matrix.shape[1]
    return matrix if aligned and apart else matrix.clone(memory_format=torch.contiguous_format)


def bias_arguments(bias: Tensor | None, operands: torch.dtype) -> dict[str, Any]:
    """A bias as the fused kernels read it: float32 or the operands' dtype, contiguous."""
    if bias is None:
        return {"bias": None, "bias_dtype": DTYPE_CODES[torch.float32]}
    if bias.dtype not in (torch.float32, operands):
        bias = bias.to(torch.float32)
    return {"bias": bias.contiguous(), "bias_dtype": DTYPE_CODES[bias.dtype]}
