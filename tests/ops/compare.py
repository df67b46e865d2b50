"""Compares a result with its float64 oracle, within the limits of tests/tolerances.py."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext import _workspace
from tests.ops.backends import running
from tests.tolerances import TOLERANCES

SMALLEST = {torch.float32: 1.2e-38, torch.bfloat16: 1.2e-38, torch.float16: 2.0**-24}


def assert_close(
    got: Tensor,
    expected: Tensor,
    kind: str,
    dtype: torch.dtype,
    logits: float = 1.0,
    terms: float = 0.0,
) -> None:
    """|got - expected| <= rtol * |expected| + atol * scale.

    `scale` is the size of the terms that the result is made of: at least that of the largest
    expected value. Those of a log-probability are the logits, and `logits` is the largest of them;
    those of a gradient are upstream gradients of about 1 times probabilities, which inherit the
    rounding of the logits and may cancel to nothing. A test that knows them gives `terms`, the
    largest sum of their sizes.
    """
    assert got.shape == expected.shape
    device = "cuda" if running().startswith("emulated") else got.device.type
    limits = TOLERANCES[kind, device, dtype]
    # A logit of size z is rounded by 2^-24 z, which is that fraction of every exp(z).
    gradient_floor = 1e-3 + 0.05 * (logits - 1)
    finite = expected[expected.isfinite()].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    scale = max(largest, terms, gradient_floor if kind.startswith("grad_") else logits)
    torch.testing.assert_close(
        got.double(),
        expected.double(),
        rtol=limits["rtol"],
        # Below the smallest number of a dtype there is nothing to be close to.
        atol=limits["atol"] * scale + SMALLEST[dtype],
        equal_nan=True,
        msg=lambda text: f"{kind}, {dtype}, scale {scale:.3g}: {text}",
    )


def grad_kind(name: str, dtype: torch.dtype) -> str:
    """The kind of a gradient of linear_logprob on the backend in use."""
    if name == "bias":
        kept = rounds_each_logit(dtype) and running() != "emulated-tiles"
        return "grad_bias/kept" if kept and _workspace.kept_bytes > 0 else "grad_bias"
    rounded = dtype == torch.bfloat16 and running() == "avx512bf16"
    return f"grad_{name}/bfloat16" if rounded else f"grad_{name}"


def rounds_each_logit(dtype: torch.dtype) -> bool:
    """Whether gradients of linear_logprob are products of rounded gradients of logits (CUDA)."""
    return running().startswith("emulated") and dtype != torch.float32
