"""A shard of the linear head on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext._ops.cpu.call import address, floats, integers, rows, vector
from suder_ext._ops.cpu.linear_logprob import arguments, run_backward, run_forward
from suder_ext._ops.head_shards import IGNORED, Grads, Head, shards


class CpuShard:
    """See `head_shards.Shard`."""

    def forward(
        self, head: Head, with_entropy: bool, keep_logits: int, with_argmax: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        head = _contiguous(head)
        tokens = head.hidden.shape[0]
        partial, logits = floats(tokens, 4, dtype=torch.float64), floats(keep_logits)
        logprob, entropy = floats(tokens), floats(tokens * with_entropy)  # of these rows alone
        argmax = integers(tokens * with_argmax)
        run_forward(
            **_arguments(head),
            logprob=logprob.data_ptr(),
            lse=0,
            entropy=address(entropy) if with_entropy else 0,
            logits=logits.data_ptr(),
            logits_size=keep_logits,
            partial=partial.data_ptr(),
            argmax=address(argmax) if with_argmax else 0,
        )
        return partial, logits, argmax

    def backward(
        self,
        head: Head,
        upstream: Grads,
        lse: Tensor,
        entropy: Tensor,
        kept: Tensor,
        needs: tuple[bool, ...],
    ) -> tuple[Tensor, Tensor, Tensor]:
        head = _contiguous(head)
        grads = [vector(grad) for grad in upstream]
        hidden, weight, dtype = head.hidden, head.weight, head.weight.dtype
        grad_hidden = floats(*(hidden.shape if needs[0] else (0,)))
        grad_weight = floats(*(weight.shape if needs[1] else (0,)), dtype=dtype)
        grad_bias = floats(weight.shape[0] * needs[2], dtype=dtype)
        run_backward(
            **_arguments(head),
            grad_logprob=address(grads[0]),
            grad_lse=address(grads[1]),
            grad_entropy=address(grads[2]),
            lse=lse.data_ptr(),
            entropy=entropy.data_ptr(),
            logits=kept.data_ptr(),
            logits_size=kept.shape[0],
            grad_hidden=address(grad_hidden) if needs[0] else 0,
            grad_hidden_stride=hidden.shape[1],
            grad_weight=address(grad_weight) if needs[1] else 0,
            grad_weight_stride=weight.shape[1],
            grad_bias=address(grad_bias) if needs[2] else 0,
            float32_hidden=True,
        )
        return grad_hidden, grad_weight, grad_bias


def _contiguous(head: Head) -> Head:
    return Head(
        rows(head.hidden),
        rows(head.weight),
        vector(head.bias),
        head.target.contiguous(),
        head.temperature,
        head.softcap,
    )


def _arguments(head: Head) -> dict[str, object]:
    return arguments(*head[:4], IGNORED, *head[4:])


shards["cpu"] = CpuShard()
