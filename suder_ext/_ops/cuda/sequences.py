"""sequence_reduce and group_advantage on CUDA: allocate the results, pass addresses."""

from __future__ import annotations

from torch import Tensor

from suder_ext._ops.cuda.call import Ops, floats, integers, run

NORMALIZE_CODES = {"none": 0, "std": 1, "mean": 2}


def sequence_reduce(
    logprob: Tensor, target: Tensor, cu_seqlens: Tensor, mean: bool, ignore_index: int
) -> tuple[Tensor, Tensor]:
    sequences = cu_seqlens.shape[0] - 1
    value, count = floats(logprob, sequences), integers(logprob, sequences)
    run(
        "sequence_reduce",
        logprob,
        logprob=logprob.contiguous(),
        tokens=logprob.shape[0],
        cu_seqlens=cu_seqlens.contiguous(),
        sequences=sequences,
        target=target.contiguous(),
        ignore_index=ignore_index,
        mean=mean,
        value=value,
        count=count,
    )
    return value, count


def sequence_reduce_backward(
    grad_value: Tensor,
    target: Tensor,
    cu_seqlens: Tensor,
    count: Tensor,
    mean: bool,
    ignore_index: int,
) -> Tensor:
    grad_logprob = floats(grad_value, target.shape[0])
    run(
        "sequence_reduce_backward",
        grad_value,
        grad_value=grad_value.contiguous(),
        tokens=target.shape[0],
        cu_seqlens=cu_seqlens.contiguous(),
        sequences=count.shape[0],
        target=target.contiguous(),
        ignore_index=ignore_index,
        mean=mean,
        count=count,
        grad_logprob=grad_logprob,
    )
    return grad_logprob


def group_advantage(
    reward: Tensor, group_size: int, normalize: str
) -> tuple[Tensor, Tensor, Tensor]:
    groups = reward.shape[0] // group_size
    advantage = floats(reward, reward.shape[0])
    best, worst = integers(reward, groups), integers(reward, groups)
    run(
        "group_advantage",
        reward,
        reward=reward.contiguous(),
        groups=groups,
        group_size=group_size,
        normalize=NORMALIZE_CODES[normalize],
        advantage=advantage,
        best=best,
        worst=worst,
    )
    return advantage, best, worst


OPS: Ops = {
    "sequence_reduce": sequence_reduce,
    "sequence_reduce_backward": sequence_reduce_backward,
    "group_advantage": group_advantage,
}
