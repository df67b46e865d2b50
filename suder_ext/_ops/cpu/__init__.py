"""The CPU kernels of suder_ext._C, registered where there is a compiled module."""

from __future__ import annotations

import os

from suder_ext import _load

if os.environ.get("SUDER_KERNEL") == "compiled":
    from suder_ext._ops.cpu import linear_logprob  # noqa: F401
if hasattr(_load.compiled, "logprob"):
    from suder_ext._ops.cpu import logprob, losses, sequences  # noqa: F401
