"""build_info and the environment variables that choose what runs, each in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

import suder_ext
from suder_ext import _load
from tests.ops.backends import ISAS

SCRIPT = """
import json, torch, suder_ext
info = suder_ext.build_info()
info["value"] = suder_ext.logprob(torch.zeros(1, 4), torch.tensor([1])).item()
print(json.dumps(info))
"""
COMPILED = pytest.mark.skipif(not ISAS, reason="nothing compiled")


def run(script: str = SCRIPT, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script], env=env, capture_output=True, text=True
    )


def info(**environment: str) -> dict[str, Any]:
    done = run(**environment)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_reference_is_forced() -> None:
    got = info(SUDER_KERNEL="reference")
    assert got["kernel"] == "reference"
    assert got["reason"] == "SUDER_KERNEL=reference"
    assert got["isas"] == []
    assert all(not devices for devices in got["operators"].values())
    assert got["value"] == pytest.approx(-1.3862944)


@COMPILED
def test_kernels_run_by_default() -> None:
    got = info(SUDER_KERNEL="auto", SUDER_CPU_ISA="")
    assert got["kernel"] == "compiled"
    assert got["isa"] == got["isas"][-1]
    assert got["isas"][0] == "portable"
    assert all("cpu" in devices for devices in got["operators"].values())
    assert got["value"] == pytest.approx(-1.3862944)
    assert got["version"] == suder_ext.__version__


@COMPILED
@pytest.mark.parametrize("isa", ISAS)
def test_the_instruction_set_is_forced(isa: str) -> None:
    assert info(SUDER_CPU_ISA=isa)["isa"] == isa


@COMPILED
def test_an_unknown_instruction_set_is_an_error() -> None:
    done = run(SUDER_CPU_ISA="mmx")
    assert done.returncode != 0
    assert "SUDER_CPU_ISA=mmx: no such instruction set; use one of portable" in done.stderr


def test_an_unknown_choice_is_an_error() -> None:
    done = run(SUDER_KERNEL="fast")
    assert done.returncode != 0
    assert "SUDER_KERNEL is 'fast'; it takes one of auto, compiled, reference" in done.stderr


HIDE = """
import importlib.machinery, sys, types
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "suder_ext._C":
            {action}
sys.meta_path.insert(0, Finder())
"""


def test_without_a_compiled_module_everything_imports() -> None:
    hide = HIDE.format(action="raise ModuleNotFoundError(name, name=name)")
    done = run(hide + SCRIPT, SUDER_KERNEL="auto")
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert (got["kernel"], got["reason"]) == ("reference", "suder_ext._C was not built")
    strict = run(hide + SCRIPT, SUDER_KERNEL="compiled")
    assert "SUDER_KERNEL=compiled, but suder_ext._C was not built" in strict.stderr


def test_a_broken_module_is_not_passed_over_in_silence() -> None:
    hide = HIDE.format(action="raise ImportError('undefined symbol: x')")
    done = run(hide + SCRIPT, SUDER_KERNEL="auto")
    assert done.returncode != 0  # -W error
    assert "suder_ext runs on its reference: suder_ext._C does not load: undef" in done.stderr


@pytest.mark.parametrize("op", _load.OPERATORS)
def test_a_module_of_an_older_build_is_named(op: str) -> None:
    """By what it lacks, once, and none of it is used: half of a build would be hard to explain."""
    others = {name: None for name in (*_load.OPERATORS, "logit_tile") if name != op}
    older = SimpleNamespace(**others)
    reason = f"suder_ext._C is of an older build, without {op}"
    with (
        mock.patch.object(_load, "import_module", return_value=older),
        mock.patch.dict(os.environ, SUDER_KERNEL="auto"),
        pytest.warns(RuntimeWarning, match=f"{reason}; run `pip install .`"),
    ):
        assert _load._find() == (None, reason)
