"""CPU kernels of linear_kl: allocate the results, pass addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from suder_ext._load import compiled
from suder_ext._ops.cpu.call import DTYPE_CODES, address, floats, kernel, rows, vector

assert compiled is not None
_forward, _backward = compiled.linear_kl, compiled.linear_kl_backward

Head = tuple[Tensor, Tensor, Tensor | None]


def _arguments(
    policy: Head,
    reference: Head,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
) -> dict[str, Any]:
    """What forward and backward share. The tensors must outlive the call: keep them in locals."""
    return {
        "policy": _head(*policy),
        "reference": _head(*reference),
        "tokens": target.shape[0],
        "vocab": policy[1].shape[0],
        "dtype": DTYPE_CODES[policy[0].dtype],
        "target": target.data_ptr(),
        "ignore_index": ignore_index,
        "temperature": temperature,
        "softcap": softcap or 0.0,
        "threads": torch.get_num_threads(),
    }


def _head(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[int, ...]:
    return (
        hidden.data_ptr(),
        hidden.shape[1],
        hidden.stride(0),
        weight.data_ptr(),
        weight.stride(0),
        address(bias),
    )


@kernel("linear_kl", can_save_less=True)
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
    for_backward: bool = True,
) -> tuple[Tensor | None, ...]:
    policy = rows(hidden), rows(weight), vector(bias)
    reference = rows(ref_hidden), rows(ref_weight), vector(ref_bias)
    target = target.contiguous()
    tokens = target.shape[0]
    kl, state, logits = floats(tokens), None, None
    if for_backward:
        state, logits = floats(tokens, 4), floats(2 * keep_logits)
    _forward(
        **_arguments(policy, reference, target, ignore_index, temperature, softcap),
        kl=kl.data_ptr(),
        state=address(state),
        logits=address(logits),
        logits_size=keep_logits,
    )
    return kl, state, logits


@kernel("linear_kl_backward")
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
    policy = rows(hidden), rows(weight), vector(bias)
    reference = rows(ref_hidden), rows(ref_weight), vector(ref_bias)
    grad_kl, target = grad_kl.contiguous(), target.contiguous()
    vocab = weight.shape[:1]
    shapes = hidden.shape, weight.shape, vocab, ref_hidden.shape, ref_weight.shape, vocab
    grads = tuple(
        floats(*(shape if need else (0,)), dtype=hidden.dtype)
        for shape, need in zip(shapes, needs, strict=True)
    )
    if target.shape[0] == 0:
        return tuple(grad.zero_() for grad in grads)
    places = tuple(grad.data_ptr() if need else 0 for grad, need in zip(grads, needs, strict=True))
    _backward(
        **_arguments(policy, reference, target, ignore_index, temperature, softcap),
        grad_kl=grad_kl.data_ptr(),
        kl=kl.data_ptr(),
        state=state.data_ptr(),
        logits=logits.data_ptr(),
        logits_size=logits.shape[0] // 2,
        policy_gradients=places[:3],
        reference_gradients=places[3:],
    )
    return grads
