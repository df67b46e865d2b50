"""The model of the CUDA kernels gives what was measured, with the constants of that day's code."""

from __future__ import annotations

import pytest

from benchmarks import model


@pytest.mark.parametrize(
    ("kernel", "shape", "measured", "modelled"),
    model.calibration(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_within_ten_percent(kernel: str, shape: str, measured: float, modelled: float) -> None:
    assert modelled == pytest.approx(measured, rel=0.1)
