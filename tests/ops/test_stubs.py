"""The stubs say what the compiled modules are, parameter by parameter."""

from __future__ import annotations

from pathlib import Path

import pytest

from suder_ext import _load
from tests.ops import stubs
from tests.ops.emulated import KERNELS

PACKAGE = Path(_load.__file__).parent
MODULES = {"_C": _load.compiled, "_C_cuda": KERNELS}  # the emulated: the same bindings


@pytest.mark.parametrize("name", MODULES)
def test_a_stub_is_what_the_module_is(name: str) -> None:
    module = MODULES[name]
    if module is None:
        pytest.skip(f"{name} is not built" + ": make emulated" * (name == "_C_cuda"))
    assert stubs.differences(module, PACKAGE / f"{name}.pyi") == []


@pytest.mark.parametrize(
    ("right", "wrong", "found"),
    [
        ("threads: int,", "", "the module has ['*, threads: int']"),
        ("softcap: float", "softcap: int", "'*, softcap: float'], the stub ['*, softcap: int']"),
        ("def fma_loop(", "def fma_peak(", "fma_loop is in the module only"),
        ("def fma_loop(", "def fma_peak(", "fma_peak is in the stub only"),
        ("partial: int = ...", "partial: int", "['*, partial: int = ...']"),
    ],
)
@pytest.mark.skipif(_load.compiled is None, reason="nothing compiled")
def test_a_wrong_stub_is_found(tmp_path: Path, right: str, wrong: str, found: str) -> None:
    text = (PACKAGE / "_C.pyi").read_text()
    assert right in text
    stub = tmp_path / "_C.pyi"
    stub.write_text(text.replace(right, wrong))
    assert _load.compiled is not None
    assert any(found in line for line in stubs.differences(_load.compiled, stub))
