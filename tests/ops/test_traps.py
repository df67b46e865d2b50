"""Traps that peers fell into, for linear_logprob; those of logprob are in test_logprob_traps.py."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import suder_ext
from tests.ops.cases import DTYPES, OUTPUTS, Case, gradients, linear_case, oracle, upstream_for
from tests.ops.compare import assert_close, grad_kind


def check(case: Case, logits: float = 1.0) -> dict[str, torch.Tensor]:
    upstream = upstream_for(case)
    expected, expected_grads = oracle(case, upstream)
    got, grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
    for name in OUTPUTS:
        assert_close(got[name], expected[name], name, case.dtype, logits)
    for name, grad in grads.items():
        kind = grad_kind(name, case.dtype)
        assert_close(grad, expected_grads[name], kind, case.dtype, logits)
    assert bool((got["logprob"] <= 0).all())
    return got


@pytest.mark.parametrize("vocab", [50257, 129920, 151936])
def test_vocabularies_of_real_models(isa: str, vocab: int) -> None:
    case = linear_case(3, 5, vocab, ignored=0.0)
    case.target[0] = vocab - 1  # in the last, partial tile
    case.target[1] = vocab // 64 * 64 - 1
    check(case)


@pytest.mark.parametrize("vocab", [65, 127, 129, 1023, 1025])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_target_in_the_last_partial_tile(isa: str, dtype: torch.dtype, vocab: int) -> None:
    case = linear_case(17, 12, vocab, dtype, ignored=0.0)
    case.target.fill_(vocab - 1)
    check(case)


@pytest.mark.parametrize("bias", [True, False])
def test_all_logits_negative(backend: str, bias: bool) -> None:
    """A maximum that starts at 0, or columns past the end taken as 0, would be the largest."""
    case = linear_case(6, 8, 100, ignored=0.0, bias=bias)
    if bias:
        case.floats["bias"].sub_(200)
    else:
        case.floats["hidden"][:, 0] = 10.0
        case.floats["weight"][:, 0] = -20.0
    check(case, logits=200)


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_large_common_offset(backend: str, offset: float) -> None:
    """float32 logits near 1e4 lie 1e-3 apart; nothing else may be lost."""
    case = linear_case(6, 8, 100, ignored=0.0)
    check(replace(case, floats={**case.floats, "bias": case.floats["bias"] + offset}), logits=1e4)


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_an_exact_offset_costs_nothing(isa: str, offset: float) -> None:
    """Logits that are multiples of 2^-8 stay exact beside 1e4, so log p keeps all its digits."""
    case = linear_case(6, 8, 100, ignored=0.0, bias=False)
    hidden = torch.cat([torch.ones(6, 1), (case.floats["hidden"] * 4).round() / 4], dim=1)
    weight = torch.cat(
        [torch.full((100, 1), offset), (case.floats["weight"] * 16).round() / 16], dim=1
    )
    case = replace(case, floats={"hidden": hidden, "weight": weight})
    upstream = {"logprob": upstream_for(case)["logprob"]}
    expected, _ = oracle(case, upstream)
    got = suder_ext.linear_logprob(hidden, weight, case.target)
    assert_close(got, expected["logprob"], "logprob", torch.float32)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 3e38])
def test_garbage_in_ignored_rows(backend: str, garbage: float) -> None:
    case = linear_case(20, 16, 33, ignored=0.0)
    case.target[[1, 4, 19]] = -100
    clean = gradients(case, suder_ext.linear_logprob_stats, upstream_for(case))
    case.floats["hidden"][[1, 4, 19]] = garbage
    upstream = {name: g.clone() for name, g in upstream_for(case).items()}
    for grad in upstream.values():
        grad[[1, 4, 19]] = garbage
    got, grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
    for name in OUTPUTS:
        assert torch.equal(got[name], clean[0][name])
    for name, grad in grads.items():
        assert torch.equal(grad, clean[1][name]), name


def test_all_rows_ignored(backend: str) -> None:
    case = linear_case(5, 8, 33, ignored=1.1)
    got, grads = gradients(case, suder_ext.linear_logprob_stats, upstream_for(case))
    assert all(not got[name].any() for name in OUTPUTS)
    assert all(not grad.any() for grad in grads.values())


@pytest.mark.parametrize("value", [0.0, -2.0, 1e-30])
def test_uniform_upstream(backend: str, value: float) -> None:
    case = linear_case(9, 8, 33)
    upstream = {"logprob": torch.full((9,), value)}
    _, expected = oracle(case, upstream)
    _, grads = gradients(case, suder_ext.linear_logprob, upstream)
    for name, grad in grads.items():
        assert_close(grad, expected[name], f"grad_{name}", torch.float32)
        assert value or not grad.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_never_above_zero(backend: str, dtype: torch.dtype) -> None:
    """One logit far above the rest: log p rounds to 0, not to a probability above 1."""
    hidden = torch.linspace(0, 60, 64)[:, None].to(dtype)
    weight = torch.zeros(1025, 1, dtype=dtype)
    weight[0] = 1.0
    got = suder_ext.linear_logprob(hidden, weight, torch.zeros(64, dtype=torch.int64))
    assert (got <= 0).all()
    assert got[-1] == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_and_inf_stay_in_their_row(isa: str, dtype: torch.dtype, bad: float) -> None:
    case = linear_case(40, 16, 70, dtype, ignored=0.0)
    upstream = upstream_for(case)
    clean, clean_grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
    case.floats["hidden"][7, 3] = bad
    got, grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
    rest = torch.arange(40) != 7
    assert got["logprob"][7].isnan()
    for name in OUTPUTS:
        assert torch.equal(got[name][rest], clean[name][rest])
    assert torch.equal(grads["hidden"][rest], clean_grads["hidden"][rest])


def test_tokens_by_vocab_above_2_to_31(fastest: str) -> None:
    """2^21 tokens by 1031 words, D = 1: the logits would fill 8 GiB."""
    tokens, vocab = 2**21, 1031
    assert tokens * vocab > 2**31
    case = linear_case(1, 1, vocab, torch.bfloat16, ignored=0.0)
    hidden = case.floats["hidden"].expand(tokens, 1)
    target = case.target.repeat(tokens)
    target[-1] = vocab - 1
    got = suder_ext.linear_logprob(hidden, case.floats["weight"], target, case.floats["bias"])
    assert (got[:-1] == got[0]).all()
    last = suder_ext.linear_logprob(
        hidden[:1], case.floats["weight"], target[-1:], case.floats["bias"]
    )
    assert got[-1] == last[0]


def test_weight_rows_2_to_31_elements_apart(fastest: str) -> None:
    """Of 4 GiB of address space, two rows are touched."""
    case = linear_case(3, 40, 2, torch.bfloat16, ignored=0.0, bias=False)
    room = torch.empty(2**31 + 200, dtype=torch.bfloat16)
    far = room.as_strided((2, 40), (2**31 + 8, 1))
    far.copy_(case.floats["weight"])
    got = suder_ext.linear_logprob(case.floats["hidden"], far, case.target)
    assert torch.equal(got, case.run(suder_ext.linear_logprob))


def test_empty_batch(backend: str) -> None:
    leaves = [torch.zeros(0, 8), torch.randn(33, 8), torch.randn(33)]
    hidden, weight, bias = (leaf.requires_grad_() for leaf in leaves)
    stats = suder_ext.linear_logprob_stats(hidden, weight, torch.zeros(0, dtype=torch.long), bias)
    assert all(x.shape == (0,) for x in stats)
    torch.cat(stats).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.shape == (0, 8)
    assert weight.grad is not None
    assert not weight.grad.any()
    assert bias.grad is not None
    assert not bias.grad.any()


def test_no_sequences(backend: str) -> None:
    none = torch.zeros(0, 8), torch.randn(33, 8), torch.zeros(0, dtype=torch.long)
    cu = torch.zeros(1, dtype=torch.long)
    assert suder_ext.linear_sequence_logprob(*none, cu).shape == (0,)
    assert suder_ext.linear_preference_loss(*none, cu).loss.shape == (0,)
    rewards = suder_ext.dual_reward(*none, cu, group_size=4)
    assert [tuple(x.shape) for x in rewards] == [(0,)] * 4


def test_a_pair_without_tokens_gives_nan_and_no_gradient(backend: str) -> None:
    case = linear_case(6, 8, 33, ignored=0.0)
    leaves = {name: t.requires_grad_() for name, t in case.floats.items()}
    cu = torch.tensor([0, 2, 2, 4, 6])
    result = suder_ext.linear_preference_loss(target=case.target, cu_seqlens=cu, **leaves)
    assert result.loss.isnan().tolist() == [True, False]
    result.loss.nanmean().backward()
    assert leaves["hidden"].grad is not None
    assert not leaves["hidden"].grad[:2].any()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves.values())
