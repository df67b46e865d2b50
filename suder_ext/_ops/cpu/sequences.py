"""CPU kernels of sequence_reduce and group_advantage: allocate the results, pass addresses."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext._load import compiled
from suder_ext._ops.cpu.call import integers, kernel

assert compiled is not None
_forward, _backward = compiled.sequence_reduce, compiled.sequence_reduce_backward
_advantage = compiled.group_advantage
NORMALIZE_CODES = {"none": 0, "std": 1, "mean": 2}


@kernel("sequence_reduce")
def sequence_reduce(
    logprob: Tensor, target: Tensor, cu_seqlens: Tensor, mean: bool, ignore_index: int
) -> tuple[Tensor, Tensor]:
    logprob, target = logprob.contiguous(), target.contiguous()
    cu_seqlens = cu_seqlens.contiguous()
    sequences = cu_seqlens.shape[0] - 1
    value, count = logprob.new_empty(sequences), target.new_empty(sequences)
    _forward(
        logprob.data_ptr(),
        logprob.shape[0],
        cu_seqlens.data_ptr(),
        sequences,
        target.data_ptr(),
        ignore_index,
        mean,
        torch.get_num_threads(),
        value.data_ptr(),
        count.data_ptr(),
    )
    return value, count


@kernel("sequence_reduce_backward")
def sequence_reduce_backward(
    grad_value: Tensor,
    target: Tensor,
    cu_seqlens: Tensor,
    count: Tensor,
    mean: bool,
    ignore_index: int,
) -> Tensor:
    grad_value, target = grad_value.contiguous(), target.contiguous()
    cu_seqlens = cu_seqlens.contiguous()
    grad_logprob = grad_value.new_empty(target.shape[0])
    _backward(
        grad_value.data_ptr(),
        target.shape[0],
        cu_seqlens.data_ptr(),
        count.shape[0],
        target.data_ptr(),
        ignore_index,
        mean,
        torch.get_num_threads(),
        count.data_ptr(),
        grad_logprob.data_ptr(),
    )
    return grad_logprob


@kernel("group_advantage")
def group_advantage(
    reward: Tensor, group_size: int, normalize: str
) -> tuple[Tensor, Tensor, Tensor]:
    reward = reward.contiguous()
    groups = reward.shape[0] // group_size
    advantage = reward.new_empty(reward.shape[0])
    best = integers(groups)
    worst = torch.empty_like(best)
    _advantage(
        reward.data_ptr(),
        groups,
        group_size,
        NORMALIZE_CODES[normalize],
        advantage.data_ptr(),
        best.data_ptr(),
        worst.data_ptr(),
    )
    return advantage, best, worst
