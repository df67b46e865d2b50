"""Padded batches: a mask `[B, T]` in the place of cu_seqlens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suder_ext import _checks

MASKS = _checks.INTS | {torch.bool, torch.uint8}


def pack_padded(mask: Tensor, *tensors: Tensor | None) -> tuple[Any, ...]:
    """The tokens of a padded batch one after another, and where each sequence begins.

    Functions that take cu_seqlens do this themselves where they get the mask in its place, with
    every per-token argument `[B, T, ...]`; to call several of them, pack once. What is masked out
    reaches nothing. How many tokens are left is data, so a GPU is waited for; packed sequences from
    the start are not.

    Args:
        mask: bool or an integer dtype, `[B, T]`: not 0 where there is a token, on either side.
        tensors: `[B, T, ...]` each, or None, which stays None.

    Returns:
        cu_seqlens int64 `[B + 1]`, then each tensor as `[tokens, ...]`, differentiable.

    Raises:
        TypeError, ValueError: an argument that is not taken, naming it.
    """
    _checks.tensor("mask", mask, 2, MASKS)
    keep = mask != 0
    for i, value in enumerate(tensors):
        if value is not None:
            _checks.same_device(f"tensors[{i}]", value, "mask", mask)
            if value.shape[:2] != mask.shape:
                raise ValueError(
                    f"tensors[{i}] takes shape [B, T, ...] with the [B, T] of mask "
                    f"({list(mask.shape)}), got {list(value.shape)}"
                )
    cu_seqlens = torch.nn.functional.pad(keep.sum(1).cumsum(0), (1, 0))
    return cu_seqlens, *(None if value is None else value[keep] for value in tensors)


def packed(cu_seqlens: Tensor, **tensors: Tensor | None) -> tuple[Any, ...]:
    """The arguments as they are, or packed where cu_seqlens is a mask; by their names."""
    if not isinstance(cu_seqlens, Tensor) or cu_seqlens.dim() != 2:
        return cu_seqlens, *tensors.values()
    for name, value in tensors.items():
        if isinstance(value, Tensor) and value.shape[:2] != cu_seqlens.shape:
            raise ValueError(
                f"{name} takes shape [B, T, ...] beside a mask [B, T] "
                f"({list(cu_seqlens.shape)}) in the place of cu_seqlens, got {list(value.shape)}"
            )
    return pack_padded(cu_seqlens, *tensors.values())
