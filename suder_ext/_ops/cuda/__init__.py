"""The CUDA kernels of suder_ext._C_cuda, registered where there is that module.

They run wherever they hold code for the card (cards.py), the reference elsewhere; build_info() says
which and why, SUDER_KERNEL=reference forces the reference. tensor_cores.py chooses the way through
the linear head.

Nothing in these kernels waits for the device or reads from it, so every function can be captured
into a CUDA graph; a target outside the vocabulary makes its row NaN.
"""

from __future__ import annotations

from suder_ext._ops.cuda import call

if call.kernels is not None:
    from suder_ext import _load
    from suder_ext._ops import eager, head_shards, kept_logits
    from suder_ext._ops.cuda import cards, head_shard, kept_exps, ops

    _load.has_code_for = cards.has_code_for
    kept_logits.rooms["cuda"] = kept_exps.room
    head_shards.shards["cuda"] = head_shard.CudaShard()
    call.register(ops.OPS, "CUDA")
    eager.cuda_kernels.update(ops.OPS)
    eager.cuda_without_grad.update(ops.OPS | ops.WITHOUT_GRAD)
