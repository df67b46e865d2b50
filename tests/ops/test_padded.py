"""A mask in the place of cu_seqlens: what the packed batch gives, whatever the padding holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import suder_ext
from suder_ext import pack_padded

# Padding on the left, on the right, in the middle; a full row, an empty one.
MASK = torch.tensor(
    [[0, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]]
)
B, T = MASK.shape
GARBAGE = float("nan")


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    t = {name: torch.randn(B, T, generator=generator) for name in ("new", "old", "ref", "weight")}
    t |= {"advantages": torch.randn(B, T, generator=generator), "entropy": t["old"].abs()}
    t["hidden"] = torch.randn(B, T, 5, generator=generator)
    t["target"] = torch.randint(0, 7, (B, T), generator=generator)
    for name, value in t.items():
        value[MASK == 0] = 99 if name == "target" else GARBAGE
    return t


HEAD = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
CALLS: dict[str, Callable[[dict[str, Tensor], Tensor], Any]] = {
    "policy_loss": lambda t, cu: suder_ext.policy_loss(
        *(t["new"], t["old"], torch.arange(-2.0, 4.0), cu, t["ref"]),
        kl_coef=0.1,
        token_weight=t["weight"],
        sampling_logprob=t["ref"],
        entropy=t["entropy"],
        top_entropy_quantile=0.5,
    ),
    "policy_loss of tokens": lambda t, cu: suder_ext.policy_loss(
        t["new"], t["old"], t["advantages"], cu, loss_type="dapo"
    ),
    "sequence_reduce": lambda t, cu: suder_ext.sequence_reduce(
        t["new"], t["target"], cu, mean=True
    )[0].nan_to_num(),
    "linear_sequence_logprob": lambda t, cu: suder_ext.linear_sequence_logprob(
        t["hidden"], HEAD, t["target"], cu
    ).nan_to_num(),
    "dual_reward": lambda t, cu: (
        suder_ext.dual_reward(t["hidden"].detach(), HEAD, t["target"], cu, group_size=3).advantage
    ),
    "linear_preference_loss": lambda t, cu: (
        suder_ext.linear_preference_loss(t["hidden"], HEAD, t["target"], cu, reduction="mean").loss
    ),
    "wpo_weight": lambda t, cu: suder_ext.wpo_weight(
        t["hidden"], HEAD, t["target"], cu
    ).nan_to_num(),
}


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
@pytest.mark.parametrize("name", CALLS)
def test_a_mask_is_the_packed_batch(name: str, dtype: torch.dtype, backend: str) -> None:
    padded = {n: x.requires_grad_(x.is_floating_point()) for n, x in batch().items()}
    cu, *values = pack_padded(MASK, *batch().values())
    assert cu.tolist() == [0, 3, 5, 8, 12, 12, 15]
    packed = {
        n: x.clone().requires_grad_(x.is_floating_point())
        for n, x in zip(padded, values, strict=True)
    }
    got, expected = CALLS[name](padded, MASK.to(dtype)), CALLS[name](packed, cu)
    assert torch.equal(got, expected)
    if not got.requires_grad:
        return
    got.sum().backward()
    expected.sum().backward()
    for n, x in padded.items():
        assert (x.grad is None) == (packed[n].grad is None), n
        if x.grad is not None:
            assert torch.equal(x.grad[MASK != 0], packed[n].grad), n
            assert (x.grad[MASK == 0] == 0).all(), n


def test_errors() -> None:
    with pytest.raises(TypeError, match=r"mask takes dtype .*, got float32"):
        pack_padded(MASK.float())
    with pytest.raises(ValueError, match=r"tensors\[0\] takes shape \[B, T, ...\].*got \[6\]"):
        pack_padded(MASK, torch.zeros(6))
    with pytest.raises(ValueError, match=r"logprob takes shape \[B, T, ...\] beside a mask"):
        suder_ext.sequence_reduce(torch.zeros(15), torch.zeros(15).long(), MASK, mean=True)
