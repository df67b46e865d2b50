"""How the build finds nvcc (csrc/cuda/compiler), with an nvcc of our own in its place.

`.ci/emulated` builds the module with a real nvcc by the oldest CMake that is promised.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FIND = Path(__file__).parents[2] / "csrc/cuda/compiler/find.cmake"
CMAKE = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
pytestmark = pytest.mark.skipif(CMAKE is None, reason="no cmake here")
NVCC = """#!/bin/sh
if [ "$1" = --version ]; then
  echo "Cuda compilation tools, release {version}, V{version}.88"
  exit 0
fi
echo "$@" >>"$0.calls"
{compile}
"""
NO_HOST = "echo '/usr/bin/gcc-15: error: unsupported GNU version!' >&2; exit 1"


def find(folder: Path, choice: str, version: str, compiling: str = "exit 0") -> tuple[int, str]:
    """The exit status and all that CMake says."""
    nvcc = folder / "nvcc"
    nvcc.write_text(NVCC.format(version=version, compile=compiling))
    nvcc.chmod(0o755)
    assert CMAKE is not None
    done = subprocess.run(
        [CMAKE, f"-DSUDER_CUDA={choice}", "-P", str(FIND)],
        cwd=folder,
        env={**os.environ, "CUDACXX": str(nvcc), "CUDAHOSTCXX": "g++-of-mine"},
        capture_output=True,
        text=True,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_an_nvcc_that_works_is_taken_with_the_host_compiler_that_was_named(tmp_path: Path) -> None:
    status, said = find(tmp_path, "AUTO", "13.0")
    assert (status, "CUDA kernels: ON" in said) == (0, True)
    call = (tmp_path / "nvcc.calls").read_text()
    assert "-std=c++20 -ccbin g++-of-mine" in call
    assert "compiler/probe.cu" in call


@pytest.mark.parametrize(
    ("version", "compiling", "reason"),
    [
        ("13.0", NO_HOST, "13.0 does not compile a test program: /usr/bin/gcc-15: error: unsupp"),
        ("13.0", "echo 'Killed' >&2; exit 137", "does not compile a test program: Killed"),
        ("12.3", "exit 0", "is of CUDA 12.3, 12.4 or newer is needed"),
        ("none", "exit 0", "--version does not work"),
    ],
)
def test_one_that_does_not_is_left_out_by_auto_and_stops_on(
    tmp_path: Path, version: str, compiling: str, reason: str
) -> None:
    status, said = find(tmp_path, "AUTO", version, compiling)
    assert status == 0
    assert "CUDA kernels: OFF (SUDER_CUDA=AUTO)" in said
    assert reason in said
    status, said = find(tmp_path, "ON", version, compiling)
    assert status != 0
    assert f"SUDER_CUDA=ON: {tmp_path}/nvcc" in said
    assert reason in said
    assert "or use SUDER_CUDA=OFF" in said


def test_off_runs_nothing(tmp_path: Path) -> None:
    status, said = find(tmp_path, "OFF", "13.0", "exit 1")
    assert (status, "built with SUDER_CUDA=OFF" in said) == (0, True)
    assert not (tmp_path / "nvcc.calls").exists()


def test_an_unknown_choice_is_an_error(tmp_path: Path) -> None:
    status, said = find(tmp_path, "YES", "13.0")
    assert (status, "SUDER_CUDA=YES: takes AUTO, ON or OFF" in said) == (1, True)
