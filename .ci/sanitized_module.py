"""A plugin of pytest: the compiled module comes from the build in SUDER_SANITIZED."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

# Makes `from suder_ext import _C` find it, instead of the installed one.
(library,) = Path(os.environ["SUDER_SANITIZED"]).glob("_C*.so")
spec = importlib.util.spec_from_file_location("suder_ext._C", library)
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
sys.modules["suder_ext._C"] = module
spec.loader.exec_module(module)
assert module.build_info()["sanitized"], f"{library} is not built with SUDER_SANITIZE=ON"
