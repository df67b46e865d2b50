"""Arguments of dtypes that differ: widened, not rounded; gradients in each argument's own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import suder_ext
from suder_ext import reference
from tests.ops.calls import flat
from tests.ops.cases import DTYPES, linear_case, logits_case
from tests.ops.compare import assert_close

MIXED = [
    dtypes
    for dtypes in itertools.product([*DTYPES, torch.float64], repeat=3)
    if len(set(dtypes)) > 1 and dtypes.count(torch.float64) < 2
]
CU = torch.tensor([0, 5, 9, 14, 17])
CALLS = ("linear_logprob_stats", "linear_cross_entropy", "linear_preference_loss")


def run(
    library: Any, name: str, hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor
) -> Any:
    if name == "linear_cross_entropy":
        return library.linear_cross_entropy(
            hidden, weight, target, linear_bias=bias, label_smoothing=0.1
        )
    if name == "linear_preference_loss":
        return library.linear_preference_loss(hidden, weight, target, CU, bias)
    return library.linear_logprob_stats(hidden, weight, target, bias)


@pytest.mark.parametrize("name", CALLS)
def test_floats(backend: str, name: str) -> None:
    for dtypes in MIXED:
        case = linear_case(17, 16, 33)
        pairs = zip(case.floats.values(), dtypes, strict=True)
        leaves = [t.to(dtype).requires_grad_() for t, dtype in pairs]
        wide = [t.detach().double().requires_grad_() for t in leaves]
        got = flat(run(suder_ext, name, *leaves, case.target))
        expected = flat(run(reference, name, *wide, case.target))
        for one, other in zip(got, expected, strict=True):
            assert one.dtype == (torch.float64 if torch.float64 in dtypes else torch.float32)
            assert_close(one.detach(), other.detach(), "logprob", torch.float32)
        torch.cat([r.reshape(-1) for r in got]).sum().backward()
        torch.cat([r.reshape(-1) for r in expected]).sum().backward()
        for argument, leaf, oracle in zip(case.floats, leaves, wide, strict=True):
            assert leaf.grad is not None
            assert oracle.grad is not None
            assert leaf.grad.dtype == leaf.dtype
            limits = torch.float32 if leaf.dtype == torch.float64 else leaf.dtype
            assert_close(leaf.grad, oracle.grad, f"grad_{argument}/parts", limits)


TARGETS = [torch.uint8, torch.int8, torch.int16, torch.int32]


@pytest.mark.parametrize("dtype", TARGETS, ids=str)
def test_targets(backend: str, dtype: torch.dtype) -> None:
    """uint8 holds no -100: its 156, the same bits, is a target like others."""
    vocab = 200 if dtype == torch.uint8 else 33
    case, logits = linear_case(17, 16, vocab), logits_case(17, vocab)
    target = case.target.clamp(min=0) if dtype == torch.uint8 else case.target
    if dtype == torch.uint8:
        target[3] = 156
    hidden, weight, bias = case.floats.values()
    scores = logits.floats["logits"]
    calls: dict[str, Any] = {
        **{name: lambda t, n=name: run(suder_ext, n, hidden, weight, bias, t) for name in CALLS},
        "mean": lambda t: suder_ext.linear_preference_loss(
            hidden, weight, t, CU, bias, reduction="mean"
        ),
        "linear_logprob": lambda t: suder_ext.linear_logprob(hidden, weight, t, bias),
        "logprob": lambda t: suder_ext.logprob(scores, t),
        "logprob_stats": lambda t: suder_ext.logprob_stats(scores, t),
        "sequence": lambda t: suder_ext.linear_sequence_logprob(hidden, weight, t, CU, bias),
        "reward": lambda t: suder_ext.dual_reward(hidden, weight, t, CU, bias, group_size=2),
        "reduce": lambda t: suder_ext.sequence_reduce(hidden[:, 0].contiguous(), t, CU, mean=True),
        "selective": lambda t: suder_ext.selective_log_softmax(scores, t.clamp(min=0)),
        "selective K": lambda t: suder_ext.selective_log_softmax(
            scores, t.clamp(min=0)[:, None].repeat(1, 2)
        ),
    }
    for name, call in calls.items():
        got, expected = flat(call(target.to(dtype))), flat(call(target))
        for one, other in zip(got, expected, strict=True):
            assert torch.equal(one.nan_to_num(), other.nan_to_num()), name
