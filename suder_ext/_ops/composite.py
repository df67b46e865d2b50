"""Operators that a few products of torch make up, on every device with kernels."""

from __future__ import annotations

from torch import Tensor

from suder_ext._ops import eager
from suder_ext._ops.schemas import library


def policy_loss_backward(
    grad_loss: Tensor,
    logprob: Tensor,
    old_logprob: Tensor,
    ratio_slope: Tensor,
    kl_slope: Tensor,
    advantage_slope: Tensor,
) -> tuple[Tensor, ...]:
    """The slopes come scaled from the forward kernel; what is left is the upstream gradient."""
    slope = ratio_slope + kl_slope if kl_slope.shape[0] else ratio_slope
    return (
        grad_loss * slope,
        -grad_loss * ratio_slope,
        -grad_loss * kl_slope,
        grad_loss * advantage_slope,
    )


for _device in ("CPU", "CUDA"):
    library.impl("policy_loss_backward", policy_loss_backward, _device)
eager.kernels["policy_loss_backward"] = policy_loss_backward
