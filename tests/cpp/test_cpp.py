"""Builds and runs the C++ tests of this folder: one executable a file, or a file and ISA."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ISAS = ["portable"]
if platform.machine() in ("x86_64", "AMD64"):
    ISAS += ["avx2", "avx512", "avx512bf16"]


def executables() -> list[str]:
    """As tests/cpp/CMakeLists.txt names them."""
    names = [path.stem for path in sorted(HERE.glob("test_*.cc"))]
    each = [n.removesuffix("_cpu") + f"_{isa}" for n in names if n.endswith("_cpu") for isa in ISAS]
    return [n for n in names if not n.endswith("_cpu")] + each


def tool(name: str) -> str:
    """From the environment of this Python first: those are the pinned ones."""
    folder = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join([folder, os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder of the executables; kept between runs, so that only changes are compiled."""
    folder = ROOT / "build" / "cpp-tests"
    commands = [
        [tool("cmake"), "-S", ROOT, "-B", folder, "-G", "Ninja", "-DSUDER_CPP_TESTS=ON"],
        [tool("ninja"), "-C", folder],
    ]
    commands[0] += [f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-DSUDER_MODULE=OFF"]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder / "tests" / "cpp"


@pytest.mark.slow
@pytest.mark.parametrize("name", executables())
def test_executable(built: Path, name: str) -> None:
    done = subprocess.run([built / name], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
