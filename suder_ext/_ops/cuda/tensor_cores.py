"""What the fused kernels of linear_logprob take, and which of them a device has."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext._ops.cuda import call


def fused_takes(hidden: Tensor, weight: Tensor) -> bool:
    """Do the tensor-core kernels take these? Asks nothing that differs from batch to batch."""
    depth = hidden.shape[1]
    sizes = depth > 0 and depth % 8 == 0 and weight.shape[0] > 0
    return sizes and hidden.dtype in (torch.bfloat16, torch.float16)


def for_tensor_cores(matrix: Tensor) -> Tensor:
    """The matrix with rows that 16-byte copies and TMA can take (copied if they are not)."""
    aligned = matrix.stride(1) == 1 and matrix.stride(0) % 8 == 0 and matrix.data_ptr() % 16 == 0
    apart = matrix.stride(0) >= matrix.shape[1]
    return matrix if aligned and apart else matrix.clone(memory_format=torch.contiguous_format)


def on_hopper(hidden: Tensor) -> bool:
    """Is there a wgmma kernel for this device? Asks the device nothing after the first call."""
    if not hidden.is_cuda or not getattr(call.kernels, "hopper", False):
        return False
    return torch.cuda.get_device_capability(hidden.device) == (9, 0)
