"""pytest, with the compiled module taken from another build: sanitized_pytest.py BUILD ARGS..."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


def preload(build: Path) -> None:
    """Make `from suder_ext import _C` find the module in `build` instead of the installed one."""
    (library,) = build.glob("_C*.so")
    spec = importlib.util.spec_from_file_location("suder_ext._C", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["suder_ext._C"] = module
    spec.loader.exec_module(module)
    assert module.build_info()["sanitized"], f"{library} is not built with SUDER_SANITIZE=ON"


if __name__ == "__main__":
    preload(Path(sys.argv[1]))
    sys.exit(pytest.main(sys.argv[2:]))
