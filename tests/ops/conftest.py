"""Backends of the operators: the reference and every instruction set this processor runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import suder_ext
from tests.ops.backends import BACKENDS, ISAS, use_backend


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on the reference, then on every instruction set."""
    with use_backend(request.param):
        yield request.param


@pytest.fixture(params=ISAS or [pytest.param("none", marks=pytest.mark.skip("nothing compiled"))])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on every instruction set: for promises that the reference does not make."""
    with use_backend(request.param):
        yield request.param


@pytest.fixture
def fastest() -> str:
    """The instruction set that runs by default; skips where nothing is compiled."""
    if not ISAS:
        pytest.skip("nothing compiled")
    return str(suder_ext.build_info()["isa"])


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A test may change the number of threads; the next one starts from one again."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)
