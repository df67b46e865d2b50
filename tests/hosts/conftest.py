"""Other people's trainers themselves, from the folder $SUDER_HOSTS, which `.ci/hosts` fills.

Installed as they want it they need older libraries than ours, or a GPU; so they lie beside ours
without their dependencies, and what of them can be imported so is called here.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from types import ModuleType

import pytest

FOLDER = os.environ.get("SUDER_HOSTS")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module of theirs."""
    if not FOLDER:
        pytest.skip("SUDER_HOSTS is not set: .ci/hosts installs what this needs, and runs it")
    monkeypatch.setattr(sys, "path", [*sys.path, os.path.abspath(FOLDER)])  # ours come first

    def module(name: str) -> ModuleType:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)

    return module
