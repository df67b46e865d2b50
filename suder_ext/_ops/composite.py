"""Operators that a few products of torch make up."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext._ops import eager
from suder_ext._ops.schemas import library

ELEMENTS_AT_A_TIME = 2**20


def policy_loss_backward(
    grad_loss: Tensor,
    logprob: Tensor,
    old_logprob: Tensor,
    ratio_slope: Tensor,
    kl_slope: Tensor,
    logprob_slope: Tensor,
    advantage_slope: Tensor,
    weight_slope: Tensor,
) -> tuple[Tensor, ...]:
    """The slopes come scaled from the forward kernel; what is left is the upstream gradient."""
    if logprob_slope.shape[0]:
        slope = logprob_slope
    else:
        slope = ratio_slope + kl_slope if kl_slope.shape[0] else ratio_slope
    return (
        grad_loss * slope,
        -grad_loss * ratio_slope,
        -grad_loss * kl_slope,
        grad_loss * advantage_slope,
        grad_loss * weight_slope,
    )


def linear_preference_loss_backward(
    grad_loss: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, *slopes: Tensor
) -> tuple[Tensor, ...]:
    """Float32 times the upstream gradient, then rounded: once, and after a loss scale is on it."""
    return tuple(_product(slope, grad_loss, hidden.dtype) for slope in slopes)


def _product(slope: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """slope * scale; in 16 bits a few rows at a time, for there may be no room for all in 32."""
    if dtype == torch.float32 or slope.numel() == 0:
        return (slope * scale).to(dtype)
    result = torch.empty_like(slope, dtype=dtype)
    rows = max(1, ELEMENTS_AT_A_TIME * slope.shape[0] // slope.numel())
    for part, out in zip(slope.split(rows), result.split(rows), strict=True):
        out.copy_(part * scale)
    return result


for _device in ("CPU", "CUDA"):
    library.impl("policy_loss_backward", policy_loss_backward, _device)
library.impl("linear_preference_loss_backward", linear_preference_loss_backward, "CPU")
eager.kernels["policy_loss_backward"] = policy_loss_backward
