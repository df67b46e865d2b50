"""Checks of the public functions: each error names the argument, what it got and what it takes.

Shapes, dtypes and devices only, which costs a few microseconds, needs no synchronisation and holds
for fake tensors. Values (a target outside the vocabulary, an unsorted cu_seqlens) are checked where
the data is read: in the kernels, and for the reference in `cu_seqlens_values` and in itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from suder_ext import _transforms

FLOATS = frozenset({torch.float32, torch.bfloat16, torch.float16, torch.float64})
INTS = frozenset({torch.int64, torch.int32})
CLASSES = INTS | {torch.int16, torch.int8, torch.uint8}


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def tensor(name: str, value: object, rank: int, dtypes: frozenset[torch.dtype]) -> None:
    """`value` is a tensor of the given rank (-1: any) and one of the dtypes."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} takes a tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        takes = ", ".join(sorted(_name(dtype) for dtype in dtypes))
        raise TypeError(f"{name} takes dtype {takes}, got {_name(value.dtype)}")
    if rank >= 0 and value.dim() != rank:
        raise ValueError(f"{name} takes {rank} dimension(s), got shape {list(value.shape)}")


def same_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Kernels read every argument on one device."""
    if value.device != other.device:
        raise ValueError(
            f"{name} takes the device of {other_name} ({other.device}), got {value.device}"
        )


def shape(name: str, value: Tensor, expected: Sequence[int], why: str) -> None:
    """`value` has exactly the expected shape; `why` says where that comes from."""
    if value.shape != torch.Size(expected):
        raise ValueError(f"{name} takes shape {list(expected)} ({why}), got {list(value.shape)}")


def positive(name: str, value: float) -> None:
    """A scale must be above 0 (and not NaN)."""
    if not value > 0:
        raise ValueError(f"{name} takes a number above 0, got {value}")


def choice(name: str, value: object, choices: Sequence[object]) -> None:
    """One of a closed list."""
    if value not in choices:
        raise ValueError(f"{name} takes one of {', '.join(map(repr, choices))}, got {value!r}")


def scales(temperature: float, softcap: float | None) -> None:
    """Settings of the final logits."""
    positive("temperature", temperature)
    if softcap is not None:
        positive("softcap", softcap)


def logits(
    logits: Tensor, target: Tensor, temperature: float, softcap: float | None, name: str = "logits"
) -> None:
    """Arguments of the functions that start from logits[..., V]."""
    tensor(name, logits, -1, FLOATS)
    tensor("target", target, -1, CLASSES)
    if logits.dim() == 0 or logits.shape[-1] == 0:
        raise ValueError(f"{name} takes shape [..., V] with V >= 1, got {list(logits.shape)}")
    shape("target", target, logits.shape[:-1], f"that of {name} without its last dimension")
    same_device("target", target, name, logits)
    scales(temperature, softcap)


def linear(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    temperature: float = 1.0,
    softcap: float | None = None,
    names: tuple[str, str, str] = ("hidden", "weight", "bias"),
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Arguments of the linear_* functions; returns hidden, weight, bias in one dtype."""
    tensor(names[0], hidden, -1, FLOATS)
    tensor(names[1], weight, 2, FLOATS)
    tensor("target", target, -1, CLASSES)
    if hidden.dim() == 0 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"{names[0]} takes shape [..., D] with the D of {names[1]}[V, D], "
            f"got {list(hidden.shape)} and {list(weight.shape)}"
        )
    if weight.shape[0] == 0:
        raise ValueError(f"{names[1]} takes shape [V, D] with V >= 1, got {list(weight.shape)}")
    shape("target", target, hidden.shape[:-1], f"that of {names[0]} without its last dimension")
    same_device(names[1], weight, names[0], hidden)
    same_device("target", target, names[0], hidden)
    if bias is not None:
        tensor(names[2], bias, 1, FLOATS)
        shape(names[2], bias, weight.shape[:1], f"the V of {names[1]}")
        same_device(names[2], bias, names[0], hidden)
    scales(temperature, softcap)
    return widened(*autocast(hidden, weight, bias))


def autocast(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Under torch.autocast the product's operands take its dtype, as those of F.linear do."""
    device = hidden.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return hidden, weight, bias
    dtype = torch.get_autocast_dtype(device)
    if hidden.dtype == torch.float64 or weight.dtype == torch.float64:
        return hidden, weight, bias
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def widened(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The narrowest dtype that holds all three exactly: to mix dtypes rounds nothing."""
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    if bias is not None:
        dtype = torch.promote_types(dtype, bias.dtype)
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def cu_seqlens(cu_seqlens: Tensor, other_name: str, other: Tensor) -> None:
    """Offsets [B+1] of B packed sequences; the values are checked where they are read."""
    tensor("cu_seqlens", cu_seqlens, 1, INTS)
    if cu_seqlens.shape[0] == 0:
        raise ValueError("cu_seqlens takes shape [B+1] (offsets from 0 to T), got [0]")
    same_device("cu_seqlens", cu_seqlens, other_name, other)


def pairs(cu_seqlens: Tensor) -> None:
    """Offsets of pairs: an even number of sequences."""
    if cu_seqlens.shape[0] % 2 == 0:
        raise ValueError(
            f"cu_seqlens takes shape [2P+1] (chosen and rejected of each pair), "
            f"got {list(cu_seqlens.shape)}"
        )


def pair_weight(value: Tensor | None, like_name: str, like: Tensor, pairs: int) -> None:
    """A weight a pair, or none."""
    if value is None:
        return
    tensor("pair_weight", value, 1, FLOATS)
    shape("pair_weight", value, (pairs,), "one a pair")
    same_device("pair_weight", value, like_name, like)


def like(name: str, value: Tensor, like_name: str, like: Tensor) -> None:
    """A float tensor in the shape and on the device of another."""
    tensor(name, value, -1, FLOATS)
    shape(name, value, like.shape, f"that of {like_name}")
    same_device(name, value, like_name, like)


def length(name: str, value: Tensor, like_name: str, like: Tensor) -> None:
    """Token counts [B] of the sequences beside another [B]."""
    tensor(name, value, 1, INTS)
    shape(name, value, like.shape, f"that of {like_name}")
    same_device(name, value, like_name, like)


def cu_seqlens_values(cu_seqlens: Tensor, tokens: int) -> None:
    """Where somebody can look at them: offsets are sorted from 0 to T."""
    if not _transforms.values_are_known(cu_seqlens):
        return
    offsets = cu_seqlens.tolist()
    if offsets[0] != 0 or offsets[-1] != tokens:
        raise ValueError(
            f"cu_seqlens takes offsets from 0 to T = {tokens}, got {offsets[0]} to {offsets[-1]}"
        )
    for row, (start, end) in enumerate(itertools.pairwise(offsets)):
        if end < start:
            raise ValueError(
                f"cu_seqlens takes sorted offsets, got {start} then {end} at position {row + 1}"
            )
