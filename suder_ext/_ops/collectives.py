"""What the processes of a group tell each other. Sums are made in the order of the ranks, so that
all of them, and every run, get the same bits."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def gathered(tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
    """`[ranks, ...]`: every rank's tensor, of one shape on all of them."""
    parts = tensor.new_empty(dist.get_world_size(group), *tensor.shape)
    if tensor.numel():
        dist.all_gather(list(parts.unbind(0)), tensor.contiguous(), group=group)
    return parts


def summed(rows: Tensor, dtype: torch.dtype, group: dist.ProcessGroup) -> Tensor:
    """The sum of every rank's `[N, C]`, rounded once to a dtype.

    A rank adds up its share of the rows, then hands it to the others: no more on the wire than for
    an all_reduce, whose order is the library's.
    """
    ranks, height = dist.get_world_size(group), rows.shape[0]
    if ranks == 1 or not rows.numel():
        return rows.to(dtype)
    share = -(-height // ranks)
    padded = F.pad(rows, (0, 0, 0, share * ranks - height)).contiguous()
    received = torch.empty_like(padded)
    dist.all_to_all_single(received, padded, group=group)
    total, *others = received.view(ranks, share, -1)
    for part in others:
        total += part
    return gathered(total.to(dtype), group).flatten(0, 1)[:height]
