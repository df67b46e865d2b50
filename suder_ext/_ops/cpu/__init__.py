"""The CPU kernels of suder_ext._C, registered where there is a compiled module."""

from __future__ import annotations

from suder_ext import _load

if _load.compiled is not None:
    from suder_ext._ops.cpu import (  # noqa: F401
        chunked_head,
        divergence,
        head_shard,
        linear_logprob,
        logprob,
        losses,
        sampling,
        sequences,
    )
