"""The CUDA kernels of suder_ext._C_cuda, behind SUDER_CUDA_KERNEL until a GPU has run their tests.

    reference (default)  CUDA tensors run the PyTorch reference
    tiles                linear_logprob by cuBLAS products and our row kernels; all other ops ours
    fused                the same, with tensor-core kernels of linear_logprob, forward and backward:
                         by wgmma and TMA on Hopper (compute capability 9.0), else by mma.sync
    mma                  the same, by mma.sync on Hopper too

Nothing in these kernels waits for the device or reads from it, so every function can be captured
into a CUDA graph; a target outside the vocabulary makes its row NaN.
"""

from __future__ import annotations

import os

from suder_ext._ops.cuda import call

CHOICES = ("reference", "tiles", "fused", "mma")


def _choice() -> str:
    choice = os.environ.get("SUDER_CUDA_KERNEL", "reference")
    if choice not in CHOICES:
        raise ValueError(f"SUDER_CUDA_KERNEL is {choice!r}; it takes one of {', '.join(CHOICES)}")
    return choice


def _register(choice: str) -> None:
    if call.kernels is None:
        raise ImportError(
            f"SUDER_CUDA_KERNEL={choice}, but there is no suder_ext._C_cuda "
            f"({call.missing_reason}); install with SUDER_CUDA=ON and nvcc on the PATH"
        )
    from suder_ext._ops.cuda import (
        chunked_head,
        fused_backward,
        linear_logprob,
        logprob,
        losses,
        sequences,
    )

    functions: call.Ops = {
        **logprob.OPS,
        **losses.OPS,
        **sequences.OPS,
        **linear_logprob.OPS,
        **chunked_head.OPS,
    }
    if choice == "fused":
        functions["linear_logprob"] = linear_logprob.fused_linear_logprob
        functions["linear_logprob_backward"] = fused_backward.fused_linear_logprob_backward
    elif choice == "mma":
        functions["linear_logprob"] = linear_logprob.mma_linear_logprob
        functions["linear_logprob_backward"] = fused_backward.mma_linear_logprob_backward
    call.register(functions, "CUDA")


if os.environ.get("SUDER_KERNEL") != "reference" and _choice() != "reference":
    _register(_choice())
