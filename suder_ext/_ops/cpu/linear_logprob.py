"""CPU kernels of linear_logprob: allocate the results, pass addresses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suder_ext._load import compiled
from suder_ext._ops.cpu.call import DTYPE_CODES, address, floats, integers, kernel, rows, vector

assert compiled is not None
run_forward, run_backward = compiled.linear_logprob, compiled.linear_logprob_backward


def arguments(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
) -> dict[str, Any]:
    """What forward and backward share. The tensors must outlive the call: keep them in locals."""
    return {
        "hidden": hidden.data_ptr(),
        "tokens": hidden.shape[0],
        "features": hidden.shape[1],
        "hidden_stride": hidden.stride(0),
        "weight": weight.data_ptr(),
        "vocab": weight.shape[0],
        "weight_stride": weight.stride(0),
        "bias": address(bias),
        "dtype": DTYPE_CODES[hidden.dtype],
        "target": target.data_ptr(),
        "ignore_index": ignore_index,
        "temperature": temperature,
        "softcap": softcap or 0.0,
        "threads": torch.get_num_threads(),
    }


@kernel("linear_logprob", can_save_less=True)
def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    with_entropy: bool,
    keep_logits: int,
    with_argmax: bool,
    for_backward: bool = True,
) -> tuple[Tensor | None, ...]:
    hidden, weight, bias, target = rows(hidden), rows(weight), vector(bias), target.contiguous()
    tokens = hidden.shape[0]
    logprob, lse, entropy, logits = floats(tokens), None, None, None
    if with_entropy or for_backward:
        lse, entropy = floats(tokens), floats(tokens if with_entropy else 0)
        logits = floats(keep_logits)
    argmax = integers(tokens) if with_argmax else None
    run_forward(
        **arguments(hidden, weight, bias, target, ignore_index, temperature, softcap),
        logprob=logprob.data_ptr(),
        lse=address(lse),
        entropy=address(entropy) if with_entropy else 0,
        logits=address(logits),
        logits_size=keep_logits,
        argmax=address(argmax),
    )
    return logprob, lse, entropy, logits, integers(0) if argmax is None else argmax


@kernel("linear_logprob_backward")
def linear_logprob_backward(
    grad_logprob: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    lse: Tensor,
    entropy: Tensor,
    logits: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    hidden, weight, bias, target = rows(hidden), rows(weight), vector(bias), target.contiguous()
    upstream = vector(grad_logprob), vector(grad_lse), vector(grad_entropy)
    dtype = hidden.dtype
    grad_hidden = floats(*(hidden.shape if need_hidden else (0,)), dtype=dtype)
    grad_weight = floats(*(weight.shape if need_weight else (0,)), dtype=dtype)
    grad_bias = floats(weight.shape[0] if need_bias else 0, dtype=dtype)
    run_backward(
        **arguments(hidden, weight, bias, target, ignore_index, temperature, softcap),
        grad_logprob=address(upstream[0]),
        grad_lse=address(upstream[1]),
        grad_entropy=address(upstream[2]),
        lse=lse.data_ptr(),
        entropy=entropy.data_ptr(),
        logits=logits.data_ptr(),
        logits_size=logits.shape[0],
        grad_hidden=grad_hidden.data_ptr() if need_hidden else 0,
        grad_hidden_stride=hidden.shape[1],
        grad_weight=grad_weight.data_ptr() if need_weight else 0,
        grad_weight_stride=weight.shape[1],
        grad_bias=grad_bias.data_ptr() if need_bias else 0,
    )
    return grad_hidden, grad_weight, grad_bias
