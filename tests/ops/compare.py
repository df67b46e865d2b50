"""Compares a result with its float64 oracle, within the limits of tests/tolerances.py."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.tolerances import TOLERANCES


def assert_close(
    got: Tensor, expected: Tensor, kind: str, dtype: torch.dtype, scale: float | None = None
) -> None:
    """|got - expected| <= rtol * |expected| + atol * scale.

    `scale` is the size of the terms that the result is made of: by default that of the largest
    expected value, and for log-probabilities at least 1.
    """
    assert got.shape == expected.shape
    limits = TOLERANCES[kind, got.device.type, dtype]
    if scale is None:
        finite = expected[expected.isfinite()].abs()
        largest = float(finite.max()) if finite.numel() else 0.0
        scale = largest if kind.startswith("grad") else max(1.0, largest)
    torch.testing.assert_close(
        got.double(),
        expected.double(),
        rtol=limits["rtol"],
        # The smallest normal float32: 16-bit products of tiny numbers may flush to 0.
        atol=limits["atol"] * scale + 1.2e-38,
        equal_nan=True,
        msg=lambda text: f"{kind}, {dtype}, scale {scale:.3g}: {text}",
    )
