"""What every call of a CPU kernel needs: addresses, rows, registration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from suder_ext import _load
from suder_ext._ops import eager
from suder_ext._ops.schemas import library

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def kernel(
    op: str, *, can_save_less: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the CPU kernel of torch.ops.suder.<op>.

    `can_save_less`: its last parameter is whether to make what only a backward reads.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        library.impl(op, function, "CPU")
        eager.kernels[op] = function
        eager.without_grad[op] = function
        if can_save_less:
            eager.without_grad[op] = lambda *arguments: function(*arguments, False)
        if op in _load.kernel_devices:
            _load.kernel_devices[op] |= {"cpu"}
        return function

    return register


CPU = torch.device("cpu")


def floats(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Room for a result, whatever torch's default dtype and device are."""
    return torch.empty(*size, dtype=dtype, device=CPU)


def integers(size: int) -> Tensor:
    """Room for counts or indices."""
    return torch.empty(size, dtype=torch.int64, device=CPU)


def address(tensor: Tensor | None) -> int:
    """Where the data is; 0 for an absent tensor."""
    return 0 if tensor is None else tensor.data_ptr()


def rows(matrix: Tensor) -> Tensor:
    """The matrix itself if its rows are contiguous, whatever their stride, else a copy."""
    return matrix if matrix.stride(1) == 1 or matrix.shape[1] <= 1 else matrix.contiguous()


def vector(tensor: Tensor | None) -> Tensor | None:
    """Contiguous, or None."""
    return None if tensor is None else tensor.contiguous()
