"""Every operator that has a CUDA kernel."""

from __future__ import annotations

from suder_ext._ops.cuda import (
    divergence,
    fused_backward,
    linear_logprob,
    logprob,
    losses,
    sampling,
    sequences,
)
from suder_ext._ops.cuda.call import Ops

OPS: Ops = {
    name: function
    for module in (logprob, losses, sequences, sampling, linear_logprob, fused_backward, divergence)
    for name, function in module.OPS.items()
}

# The same results, less what only a backward reads.
WITHOUT_GRAD: Ops = {"linear_logprob": linear_logprob.without_backward}
