"""Who runs the CUDA kernels: builds, cards and the environment. Needs neither a GPU nor a build.

A module of our own stands for _C_cuda, with its names and no kernel behind them.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

import suder_ext
from suder_ext import _load
from suder_ext._ops.cuda import call, cards, tensor_cores
from tests.ops.test_build_info import run

NAMES = dict.fromkeys(call.ENTRY_POINTS)
MODULE = SimpleNamespace(architectures="80-real,90a-real", hopper=True, **NAMES)
SCRIPT = f"""
import json, sys, types
module = types.ModuleType("suder_ext._C_cuda")
module.__dict__.update({NAMES}, architectures="80-real,90a-real", hopper=True)
sys.modules["suder_ext._C_cuda"] = module
import suder_ext
print(json.dumps(suder_ext.build_info()))
"""


def test_the_kernels_run_where_they_are_built() -> None:
    done = run(SCRIPT, SUDER_KERNEL="auto", SUDER_CUDA_HEAD="auto")
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert (got["cuda_kernel"], got["cuda_reason"]) == ("compiled", "")
    assert got["cuda_architectures"] == ["80-real", "90a-real"]
    assert all("cuda" in devices for devices in got["operators"].values())


def find(result: object) -> tuple[object, str]:
    """What comes of importing the module, or of the error that this raises."""
    with mock.patch.object(importlib, "import_module", side_effect=[result]):
        return call._find()


def test_the_reference_is_forced_on_cuda_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDER_KERNEL", "reference")
    assert find(MODULE) == (None, "SUDER_KERNEL=reference")
    monkeypatch.setenv("SUDER_KERNEL", "auto")
    assert find(MODULE) == (MODULE, "")


def test_without_the_module_the_build_says_why() -> None:
    compiled = SimpleNamespace(build_info=lambda: {"cuda_missing": "nvcc is of CUDA 11"})
    for module, reason in (
        (compiled, "nvcc is of CUDA 11"),
        (None, "suder_ext._C_cuda was not built"),
    ):
        with mock.patch.object(_load, "compiled", module):
            assert find(ModuleNotFoundError()) == (None, reason)
    with (
        mock.patch.object(call, "kernels", None),
        mock.patch.object(call, "missing_reason", "no nvcc was found at build time"),
    ):
        got = suder_ext.build_info()
    assert (got["cuda_kernel"], got["cuda_architectures"]) == ("reference", [])
    assert got["cuda_reason"] == "no nvcc was found at build time"


@pytest.mark.skipif(_load.compiled is None, reason="nothing compiled")
def test_the_build_tells_the_compiled_module_its_reason() -> None:
    assert _load.compiled is not None
    missing = _load.compiled.build_info()["cuda_missing"]
    assert (missing == "") == (importlib.util.find_spec("suder_ext._C_cuda") is not None)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (ImportError("libcuda"), "suder_ext._C_cuda does not load: libcuda"),
        (
            SimpleNamespace(logits_stats=None),
            "suder_ext._C_cuda is of an older build, without logits_grad",
        ),
    ],
)
def test_a_module_of_no_use_is_not_passed_over_in_silence(module: object, reason: str) -> None:
    with pytest.warns(RuntimeWarning, match=f"CUDA tensors run the reference: {reason}"):
        assert find(module) == (None, reason)


BUILT = "80-real,86-real,89-real,90a-real,100-real,120-real,100-virtual"


@pytest.mark.parametrize(
    ("built", "capability", "runs"),
    [
        (BUILT, (7, 5), False),
        (BUILT, (8, 0), True),
        (BUILT, (8, 7), True),  # machine code of 8.6
        (BUILT, (9, 0), True),
        (BUILT, (10, 3), True),
        (BUILT, (11, 0), True),  # from PTX
        (BUILT, (12, 1), True),
        ("90a-real", (9, 0), True),
        ("90a-real", (8, 0), False),
        ("90a-real", (10, 0), False),
        ("86-real", (8, 0), False),
        ("80-real", (12, 0), False),
        ("80", (12, 0), True),  # machine code and PTX
    ],
)
def test_which_cards_have_code(built: str, capability: tuple[int, int], runs: bool) -> None:
    assert cards.runs_on(built, capability) == runs


@pytest.fixture
def two_cards() -> Iterator[None]:
    """An old card and an H100, and kernels for the second."""
    capability = {0: (7, 5), 1: (9, 0)}
    module = SimpleNamespace(architectures="90a-real", hopper=True)
    with (
        mock.patch.object(call, "kernels", module),
        mock.patch.object(cards, "_known", {}),
        mock.patch.object(_load, "has_code_for", cards.has_code_for),
        mock.patch.dict(_load.kernel_devices, logprob=frozenset({"meta", "cuda"})),
        mock.patch.multiple(
            torch.cuda,
            is_available=lambda: True,
            device_count=lambda: 2,
            current_device=lambda: 1,
            get_device_name=lambda index: f"Card {index}",
            get_device_capability=lambda index: capability[index],
        ),
    ):
        yield


def on(index: int | None, dtype: torch.dtype = torch.float32) -> Any:
    """What has_kernel asks of a tensor."""
    device = SimpleNamespace(type="cuda", index=index)
    return SimpleNamespace(dtype=dtype, device=device, is_cuda=True)


@pytest.mark.usefixtures("two_cards")
def test_each_card_is_asked_for_itself() -> None:
    asked = [_load.has_kernel("logprob", on(index)) for index in (0, 1, None)]
    assert asked == [False, True, True]
    assert not _load.has_kernel("logprob", on(1, torch.float64))
    assert cards.reason() == "built for 90a-real: no code for cuda:0 (Card 0, 7.5)"
    assert suder_ext.build_info()["cuda_kernel"] == "compiled"
    with mock.patch.object(cards, "_known", {0: False, 1: False}):
        assert suder_ext.build_info()["cuda_kernel"] == "reference"


@mock.patch.object(cards, "_known", {0: False, 1: True})
def test_a_compiled_function_asks_without_a_break() -> None:
    @torch.compile(fullgraph=True, backend="eager")
    def choose(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if cards.has_code_for(1) and not cards.has_code_for(0) else x - 1

    assert choose(torch.zeros(1)).item() == 1


@pytest.mark.parametrize(
    ("capability", "hopper", "way"),
    [
        ((8, 0), True, "mma"),
        ((8, 9), True, "mma"),
        ((9, 0), True, "wgmma"),
        ((9, 0), False, "tiles"),
        ((10, 0), True, "tiles"),
        ((12, 0), True, "mma"),
    ],
)
def test_the_way_through_the_head(capability: tuple[int, int], hopper: bool, way: str) -> None:
    hidden = SimpleNamespace(shape=(3, 64), dtype=torch.bfloat16, get_device=lambda: 0)
    weight = torch.empty(40, 64, device="meta")
    with (
        mock.patch.object(call, "kernels", SimpleNamespace(hopper=hopper)),
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch.cuda, "get_device_capability", return_value=capability),
        mock.patch.object(tensor_cores, "chosen", "auto"),
    ):
        assert tensor_cores.way_of(hidden, weight) == way
        for odd in ({"dtype": torch.float32}, {"shape": (3, 63)}, {"shape": (3, 0)}):
            odd_one = SimpleNamespace(**{**vars(hidden), **odd})
            assert tensor_cores.way_of(odd_one, weight) == "tiles"
    with mock.patch.object(tensor_cores, "chosen", "mma"):
        assert tensor_cores.way_of(hidden, weight) == "mma"


def test_an_unknown_way_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDER_CUDA_HEAD", "fused")
    with pytest.raises(ValueError, match="'fused'; it takes one of auto, tiles, mma, wgmma"):
        tensor_cores._chosen()


def test_the_import_does_not_bring_the_compiler() -> None:
    """It takes seconds."""
    done = run("import sys, suder_ext; print('torch._dynamo' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr
