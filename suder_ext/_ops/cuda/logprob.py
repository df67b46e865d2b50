"""logprob on CUDA: one read of each row forward, one read and one write backward."""

from __future__ import annotations

from torch import Tensor

from suder_ext._ops.cuda import call
from suder_ext._ops.cuda.call import DTYPE_CODES, Ops, floats, rows, run
from suder_ext._ops.cuda.tiles import options, results, tile_arguments, upstream


def logprob(
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    with_entropy: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    logits, target = rows(logits), target.contiguous()
    result, lse, entropy = results(logits, logits.shape[0], with_entropy)
    assert call.kernels is not None
    splits = call.kernels.logits_splits(logits.shape[1])
    run(
        "logits_stats",
        logits,
        **tile_arguments(logits, target),
        **options(ignore_index, temperature, softcap),
        state=floats(logits, splits, logits.shape[0], 4) if splits > 1 else None,
        first=True,
        last=True,
        logprob=result,
        lse=lse,
        entropy=entropy if with_entropy else None,
    )
    return result, lse, entropy


def logprob_backward(
    grad_logprob: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    logits: Tensor,
    target: Tensor,
    lse: Tensor,
    entropy: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
) -> Tensor:
    logits, target = rows(logits), target.contiguous()
    grads = upstream(grad_logprob, grad_lse, grad_entropy)
    grad = floats(logits, *logits.shape, dtype=logits.dtype)
    run(
        "logits_grad",
        logits,
        **tile_arguments(logits, target),
        **options(ignore_index, temperature, softcap),
        grad_dtype=DTYPE_CODES[grad.dtype],
        grad=grad,
        grad_stride=logits.shape[1],
        lse=lse,
        entropy=entropy if grad_entropy is not None else None,
        grad_logprob=grads[0],
        grad_lse=grads[1],
        grad_entropy=grads[2],
    )
    return grad


OPS: Ops = {"logprob": logprob, "logprob_backward": logprob_backward}
