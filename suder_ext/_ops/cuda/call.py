"""What every call of a CUDA kernel needs: the module, addresses, the stream, registration.

The tests put the emulated kernels in `kernels`; tensors are on the CPU then and the stream is 0.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from suder_ext import _load
from suder_ext._ops.schemas import library

Ops = dict[str, Callable[..., Any]]
ENTRY_POINTS = (
    "logits_stats",
    "logits_grad",
    "column_sum",
    "kl_stats",
    "kl_grad",
    "fused_forward",
    "fused_grad",
    "kept_grad",
    "sequence_reduce",
    "group_advantage",
    "preference_loss",
    "policy_loss",
    "sample_token",
)
DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def _find() -> tuple[ModuleType | None, str]:
    """The module, or None and the reason why CUDA tensors run the reference."""
    if os.environ.get("SUDER_KERNEL") == "reference":
        return None, "SUDER_KERNEL=reference"
    try:
        module = importlib.import_module("suder_ext._C_cuda")
    except ModuleNotFoundError:
        info = {} if _load.compiled is None else _load.compiled.build_info()
        return None, info.get("cuda_missing") or "suder_ext._C_cuda was not built"
    except ImportError as error:
        reason = f"suder_ext._C_cuda does not load: {error}"
    else:
        missing = [name for name in ENTRY_POINTS if not hasattr(module, name)]
        if not missing:
            return module, ""
        reason = f"suder_ext._C_cuda is of an older build, without {missing[0]}"
    # There and of no use: a broken install, which slow results must not hide.
    warnings.warn(f"CUDA tensors run the reference: {reason}", RuntimeWarning, stacklevel=2)
    return None, reason


kernels, missing_reason = _find()


def architectures() -> str:
    """What the module was compiled for, in CMake's names; "" without one."""
    return "" if kernels is None else str(kernels.architectures)


# Absent where torch has no CUDA, or another name for it; a tenth of what current_stream costs.
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)


def _stream_of(index: int) -> int:
    """The address of a device's current stream."""
    if _raw_stream is not None:
        return int(_raw_stream(index))
    return int(torch.cuda.current_stream(index).cuda_stream)


def run(name: str, like: Tensor, **arguments: Any) -> None:
    """Start a kernel on the current stream of `like`'s device. Tensors become addresses."""
    plain = {
        key: value.data_ptr() if isinstance(value, Tensor) else 0 if value is None else value
        for key, value in arguments.items()
    }
    start(name, like, **plain)


def start(name: str, like: Tensor, **plain: Any) -> None:
    """The same from addresses."""
    function = getattr(kernels, name)
    if not like.is_cuda:
        function(**plain, stream=0)
        return
    index = like.get_device()
    if index == torch.cuda.current_device():  # else the context, which costs more than the launch
        function(**plain, stream=_stream_of(index))
        return
    with torch.cuda.device(index):
        function(**plain, stream=_stream_of(index))


def register(functions: Ops, key: str) -> None:
    """Make the functions the kernels of torch.ops.suder.<name> for tensors of this device."""
    for op, function in functions.items():
        library.impl(op, function, key)
        if op in _load.kernel_devices:
            _load.kernel_devices[op] |= {key.lower()}


def floats(like: Tensor, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Room for a result, on the device of `like`."""
    return torch.empty(size, dtype=dtype, device=like.device)


def integers(like: Tensor, *size: int) -> Tensor:
    """Room for counts or indices."""
    return torch.empty(size, dtype=torch.int64, device=like.device)


def rows(matrix: Tensor) -> Tensor:
    """The matrix itself if its rows are contiguous, whatever their stride, else a copy."""
    return matrix if matrix.stride(1) == 1 or matrix.shape[1] <= 1 else matrix.contiguous()


def vector(tensor: Tensor | None) -> Tensor | None:
    """Contiguous, or None."""
    return None if tensor is None else tensor.contiguous()


def part(tensor: Tensor | None, rows: slice) -> Tensor | None:
    """Some rows of a tensor that may be absent."""
    return None if tensor is None else tensor[rows]
