"""linear_logprob_stats(argmax=True) on every backend: which entry is the most likely, and ties."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

import suder_ext
from suder_ext import LogprobStats, RankedStats, linear_logprob_stats
from tests.ops.cases import DTYPES, OUTPUTS, Case, final_logits, linear_case, upstream_for
from tests.ops.emulated import EMULATED

ranked = partial(linear_logprob_stats, argmax=True)


def check(case: Case) -> RankedStats:
    """As float64 has it; what is not near a tie here cannot be another in float32."""
    got = case.run(ranked)
    z = final_logits(case)
    two = z.topk(min(2, z.shape[-1])).values
    assert bool((two[..., 0] - two[..., -1] > 1e-6 * two.abs().amax()).all() or z.shape[-1] == 1)
    expected = z.argmax(-1).masked_fill(case.ignored, 0)
    assert got.argmax.dtype == torch.int64
    assert got.top1.dtype == torch.bool
    assert torch.equal(got.argmax, expected)
    assert torch.equal(got.top1, (expected == case.target) & ~case.ignored)
    return got


# Half a vector, tiles and their edges, several parts of the vocabulary, more tokens than a chunk.
SIZES = [(1, 1, 1), (5, 8, 3), (19, 40, 113), (130, 33, 1025), (3, 16, 9001)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_float64(backend: str, size: tuple[int, int, int], dtype: torch.dtype) -> None:
    case = linear_case(*size, dtype)
    case.target[::3] = final_logits(case)[::3].argmax(-1)
    got = check(case)
    assert bool(got.top1[0])
    plain = case.run(linear_logprob_stats)
    assert type(plain) is LogprobStats  # three, as ever
    for name in OUTPUTS:
        assert torch.equal(getattr(got, name), getattr(plain, name))


@pytest.mark.parametrize("options", [{"temperature": 0.3}, {"softcap": 4.0, "temperature": 2.0}])
@pytest.mark.parametrize("bias", [True, False])
def test_options(backend: str, options: dict[str, float], bias: bool) -> None:
    check(linear_case(21, 24, 150, bias=bias, **options))
    check(linear_case(21, 24, 150, torch.bfloat16, bias=bias, ignore_index=3, **options))


def test_padded(backend: str) -> None:
    """[B, T], ignored where there is no token; targets of any integer dtype, NaN in the padding."""
    case = linear_case(12, 16, 40, ignored=0.0)
    target = case.target.view(3, 4).int().masked_fill(torch.arange(4) > 1, -100)
    hidden = case.floats["hidden"].view(3, 4, 16)
    shaped = replace(case, floats={**case.floats, "hidden": hidden}, target=target)
    expected = check(shaped)
    assert expected.argmax.shape == (3, 4)
    hidden[:, 2:] = math.nan
    for got, wanted in zip(shaped.run(ranked), expected, strict=True):
        assert torch.equal(got, wanted)


def ties(vocab: int, places: list[int]) -> Case:
    """Exact logits, the largest at some places; a token has one of them as its target, in turn."""
    weight = torch.arange(vocab).remainder(7).float()[:, None].repeat(1, 2)
    weight[places] = 9.0
    return Case({"hidden": torch.ones(len(places), 2), "weight": weight}, torch.tensor(places))


# In one vector, in two tiles (112 rows), in two parts of the vocabulary, first and last.
@pytest.mark.parametrize("places", [[3, 4], [2, 18, 90], [111, 112], [60, 2400, 8999], [0, 8999]])
def test_the_first_of_equals(backend: str, places: list[int]) -> None:
    case = ties(9000, places)
    got = case.run(ranked)
    assert got.argmax.tolist() == [places[0]] * len(places)
    assert got.top1.tolist() == [True] + [False] * (len(places) - 1)


def test_all_equal_and_masked(backend: str) -> None:
    case = linear_case(6, 8, 300, ignored=0.0)
    floats = {**case.floats, "bias": torch.zeros(300), "hidden": torch.zeros(6, 8)}
    zeros = replace(case, floats=floats)
    zeros.target[0] = 0
    got = zeros.run(ranked)
    assert not got.argmax.any()
    assert got.top1.tolist() == (zeros.target == 0).tolist()
    case.floats["bias"][:250] = -math.inf
    case.target.clamp_(min=250)
    check(case)


def test_rows_without_a_distribution(backend: str) -> None:
    """NaN and nothing but -inf reach their own rows, which name no entry."""
    case = linear_case(20, 16, 33, ignored=0.0)
    expected = case.run(ranked)
    floats = {**case.floats, "hidden": case.floats["hidden"].clone()}
    floats["hidden"][[1, 4, 19]] = math.nan
    got = replace(case, floats=floats).run(ranked)
    broken = torch.zeros(20, dtype=torch.bool)
    broken[[1, 4, 19]] = True
    assert torch.equal(got.argmax, expected.argmax.masked_fill(broken, 0))
    assert torch.equal(got.top1, expected.top1 & ~broken)
    nothing = {**case.floats, "bias": torch.full((33,), -math.inf)}
    got = replace(case, floats=nothing, target=case.target * 0).run(ranked)
    assert not got.argmax.any()
    assert not got.top1.any()
    empty = {**case.floats, "hidden": case.floats["hidden"][:0]}
    assert replace(case, floats=empty, target=case.target[:0]).run(ranked).argmax.shape == (0,)


def test_gradients_are_those_without_it(backend: str) -> None:
    case = linear_case(13, 24, 60, softcap=5.0)
    upstream, grads = upstream_for(case), []
    for function in (linear_logprob_stats, ranked):
        leaves = {name: t.clone().requires_grad_() for name, t in case.floats.items()}
        found: Any = replace(case, floats=leaves).run(function)
        total = sum((getattr(found, name) * upstream[name]).sum() for name in OUTPUTS)
        grads.append(torch.autograd.grad(total, list(leaves.values())))
    assert not found.argmax.requires_grad
    assert not found.top1.requires_grad
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


def test_same_bits_in_any_batch_and_for_any_threads(isa: str) -> None:
    case = linear_case(130, 33, 1025, ignored=0.0)
    once = case.run(ranked)
    if isa not in EMULATED:
        torch.set_num_threads(2)
        assert torch.equal(case.run(ranked).argmax, once.argmax)
    floats = {**case.floats, "hidden": case.floats["hidden"][77:]}
    part = replace(case, floats=floats, target=case.target[77:]).run(ranked)
    assert torch.equal(part.argmax, once.argmax[77:])


def test_compiled_and_transformed(fastest: str) -> None:
    case = linear_case(8, 5, 7, ignored=0.3)
    expected = case.run(ranked)
    compiled = torch.compile(lambda *tensors: ranked(*tensors), fullgraph=True, backend="eager")
    hidden, weight, bias = case.floats.values()
    for got, wanted in zip(compiled(hidden, weight, case.target, bias), expected, strict=True):
        assert torch.equal(got, wanted)
    each = torch.vmap(lambda h, t: ranked(h, weight, t, bias))(
        hidden[:, None], case.target[:, None]
    )
    assert torch.equal(each.argmax[:, 0], expected.argmax)
    assert torch.equal(each.top1[:, 0], expected.top1)
    double = suder_ext.linear_logprob_stats(
        hidden.double(), weight.double(), case.target, bias.double(), argmax=True
    )
    assert torch.equal(double.argmax, expected.argmax)
    assert double.logprob.dtype == torch.float64
