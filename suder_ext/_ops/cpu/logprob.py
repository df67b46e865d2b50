"""CPU kernels of logprob: allocate the results, pass addresses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suder_ext._load import compiled
from suder_ext._ops.cpu.call import DTYPE_CODES, address, floats, kernel, rows, vector

assert compiled is not None
_forward, _backward = compiled.logprob, compiled.logprob_backward


def _arguments(
    logits: Tensor, target: Tensor, ignore_index: int, temperature: float, softcap: float | None
) -> tuple[Any, ...]:
    """What forward and backward share. The tensors must outlive the call: keep them in locals."""
    return (
        logits.data_ptr(),
        logits.shape[0],
        logits.shape[1],
        logits.stride(0),
        DTYPE_CODES[logits.dtype],
        target.data_ptr(),
        ignore_index,
        temperature,
        softcap or 0.0,
        torch.get_num_threads(),
    )


@kernel("logprob", can_save_less=True)
def logprob(
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    with_entropy: bool,
    for_backward: bool = True,
) -> tuple[Tensor | None, ...]:
    logits, target = rows(logits), target.contiguous()
    tokens = logits.shape[0]
    logprob, lse, entropy = floats(tokens), None, None
    if with_entropy or for_backward:
        lse, entropy = floats(tokens), floats(tokens if with_entropy else 0)
    _forward(
        *_arguments(logits, target, ignore_index, temperature, softcap),
        logprob.data_ptr(),
        address(lse),
        address(entropy),
    )
    return logprob, lse, entropy


@kernel("logprob_backward")
def logprob_backward(
    grad_logprob: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    logits: Tensor,
    target: Tensor,
    lse: Tensor,
    entropy: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
) -> Tensor:
    logits, target = rows(logits), target.contiguous()
    upstream = vector(grad_logprob), vector(grad_lse), vector(grad_entropy)
    grad_logits = floats(*logits.shape, dtype=logits.dtype)
    _backward(
        *_arguments(logits, target, ignore_index, temperature, softcap),
        address(upstream[0]),
        address(upstream[1]),
        address(upstream[2]),
        lse.data_ptr(),
        entropy.data_ptr(),
        grad_logits.data_ptr(),
        logits.shape[1],
    )
    return grad_logits
