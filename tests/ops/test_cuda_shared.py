"""How the fused kernels use shared memory: no bank conflicts, and the same bits by every ring.

On the emulated kernels that log accesses; tests/cuda_emulator/bank_log.h says what a conflict is,
bank_test.cu that they are found.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import ModuleType
from unittest import mock

import pytest
import torch

import suder_ext
from suder_ext import _workspace
from suder_ext._ops.cuda import logit_gradients
from tests.ops.cases import OUTPUTS, Case, gradients, linear_case, upstream_for
from tests.ops.emulated import EMULATED, load, use_emulated

FUSED = [name for name in EMULATED if name != "emulated-tiles"]
pytestmark = pytest.mark.skipif(not EMULATED, reason="the emulated kernels are not built")

# Cards of more and of less shared memory a block: csrc/cuda/mma_mainloop.cuh.
CARDS = {"sm_80": 166912, "sm_86": 101376}


@pytest.fixture
def logging() -> ModuleType:
    kernels = load("_C_emulated_races")
    if kernels is None:
        pytest.skip("this build logs no accesses")
    return kernels


@pytest.fixture(
    params=[(w, c) for w in FUSED for c in CARDS if w == "emulated-fused" or c == "sm_80"],
    ids="-".join,
)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name, card = request.param
    monkeypatch.setenv("SUDER_EMULATED_SHARED", str(CARDS[card]))
    return name


def _conflicts(kernels: ModuleType) -> dict[str, tuple[int, int]]:
    """Since the last call, of each instruction: how often a warp came to it, and conflicts."""
    report = ctypes.CDLL(kernels.__file__).suder_bank_report
    report.restype = ctypes.c_char_p
    lines = [line.split() for line in report().decode().splitlines()]
    return {where: (int(accesses), int(conflicts)) for where, accesses, conflicts in lines}


def _case() -> Case:
    """Two blocks of rows, several tiles, more steps than stages, a tail of rows and of depth."""
    return linear_case(140, 232, 600, torch.bfloat16)


def test_forward_has_no_bank_conflicts(way: str, logging: ModuleType) -> None:
    with use_emulated(way, logging):
        _conflicts(logging)
        _case().run(suder_ext.linear_logprob_stats)
        counted = _conflicts(logging)
    assert sum(accesses for accesses, _ in counted.values()) > 500
    assert {where: count for where, count in counted.items() if count[1]} == {}


def test_gradient_conflicts_only_over_the_factors_of_rows(way: str, logging: ModuleType) -> None:
    """The ring has none. Factors take 32 bytes a row: eight rows to a bank where they are written,
    once a part; two where a tile's epilogue reads them word by word (nvcc: 16 bytes at once)."""
    case = _case()
    with (
        use_emulated(way, logging),
        mock.patch.multiple(logit_gradients, CHUNK_TOKENS=136, SLICE_COLUMNS=2048),
    ):
        case.run(suder_ext.linear_logprob_stats)
        _conflicts(logging)
        gradients(case, suder_ext.linear_logprob_stats, upstream_for(case, outputs=OUTPUTS))
        counted = _conflicts(logging)
    ring = {w: c for w, c in counted.items() if w.startswith("mma_mainloop.cuh")}
    assert way == "emulated-hopper" or sum(accesses for accesses, _ in ring.values()) > 500
    assert {where: count for where, count in ring.items() if count[1]} == {}
    for where, (accesses, conflicts) in counted.items():
        assert conflicts <= 7 * accesses, where


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_ring_gives_the_same_bits(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients where nothing is kept: with the shallow ring nothing is."""
    case = linear_case(300, 200, 1100, dtype)
    results = []
    for most in CARDS.values():
        monkeypatch.setenv("SUDER_EMULATED_SHARED", str(most))
        with use_emulated("emulated-fused"), mock.patch.object(_workspace, "kept_bytes", 0):
            stats, grads = gradients(case, suder_ext.linear_logprob_stats, upstream_for(case))
        results.append([*stats.values(), *grads.values()])
    for deep, shallow in zip(*results, strict=True):
        assert torch.equal(deep, shallow)
