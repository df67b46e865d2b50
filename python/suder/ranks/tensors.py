"""Tensors that all processes add to, share, or hold a part of each.

Divided ones are torch's DTensors, as `fully_shard` makes them: each process holds some rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from suder.ranks.processes import _Here, gather, talking


def divided(tensor: Any) -> bool:
    """Whether each process holds a part of it only."""
    return type(tensor.data).__name__ == "DTensor"


def local(tensor: Any) -> Tensor:
    """The part that is here, which shares its memory; the tensor itself where it is whole."""
    here: Tensor = tensor.detach().to_local() if divided(tensor) else tensor
    return here


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replaces each tensor, in place, by its sum over the processes; all get the same bits."""
    if _Here.count == 1:
        return
    from torch import distributed

    with talking():
        under_way = [
            distributed.all_reduce(one, group=_group(one), async_op=True)
            for one in tensors
            if one.numel()
        ]
        for one in under_way:
            one.wait()


def total(numbers: Sequence[float]) -> list[float]:
    """The sums of some numbers over the processes, added in the order of their ranks."""
    return [sum(parts) for parts in zip(*gather(list(numbers)), strict=True)]


def part(full: Tensor, like: Any) -> Tensor:
    """Of a whole tensor, what `local(like)` is of `like`."""
    if not divided(like):
        return full
    rows = -(-full.shape[0] // _Here.count)
    begin = min(full.shape[0], rows * _Here.rank)
    return full[begin : begin + len(local(like))]


def whole(here: Tensor, like: Any) -> Tensor:
    """The whole tensor of which `here` is to it as `local(like)` to `like`; in all processes."""
    if not divided(like):
        return here
    from torch.distributed.tensor import DTensor

    with talking():
        full: Tensor = DTensor.from_local(
            here.to(like.device), like.device_mesh, like.placements,
            run_check=False, shape=like.shape, stride=like.stride(),
        ).full_tensor()  # fmt: skip
    return full


def spread(
    full: Tensor | None, shape: torch.Size, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A tensor that the first process has, in all of them.

    Args:
        full: in the first process; None in the others.
        device: where the others get it, and it goes by.
    """
    if _Here.count == 1:
        assert full is not None
        return full
    from torch import distributed

    full = torch.empty(shape, dtype=dtype) if full is None else full
    full = full.to(device).contiguous()
    with talking():
        distributed.broadcast(full, 0, group=_group(full))
    return full


def _group(tensor: Tensor) -> Any:
    """Those of the host go by gloo, others by what the launcher's device has: NCCL."""
    return _Here.host if tensor.device.type == "cpu" else None
