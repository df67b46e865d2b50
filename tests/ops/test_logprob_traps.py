"""Traps that log-likelihood kernels of other libraries fell into, for logprob."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import suder_ext
from tests.ops.backends import use_backend
from tests.ops.cases import DTYPES, OUTPUTS, Case, gradients, logits_case, oracle, upstream_for
from tests.ops.compare import assert_close


def check(case: Case, logits: float = 1.0) -> dict[str, torch.Tensor]:
    upstream = upstream_for(case)
    expected, expected_grads = oracle(case, upstream)
    got, grads = gradients(case, suder_ext.logprob_stats, upstream)
    for name in OUTPUTS:
        assert_close(got[name], expected[name], name, case.dtype, logits)
    assert_close(grads["logits"], expected_grads["logits"], "grad_logits", case.dtype, logits)
    assert bool((got["logprob"] <= 0).all())
    return got


@pytest.mark.parametrize("vocab", [50257, 129920, 151936])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_vocabularies_of_real_models(isa: str, dtype: torch.dtype, vocab: int) -> None:
    case = logits_case(3, vocab, dtype, ignored=0.0)
    case.target[0] = vocab - 1  # in the last, partial block
    case.target[1] = vocab // 1024 * 1024  # its first
    check(case)


def test_all_logits_negative(backend: str) -> None:
    case = logits_case(6, 3000, ignored=0.0)
    check(replace(case, floats={"logits": case.floats["logits"] - 50}))


@pytest.mark.parametrize("offset", [1e4, -1e4])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_large_common_offset(isa: str, offset: float, temperature: float) -> None:
    """A float32 lse does not hold the digits of log p, neither forward nor backward."""
    case = logits_case(6, 3000, ignored=0.0, temperature=temperature)
    check(replace(case, floats={"logits": case.floats["logits"] + offset}))


def test_first_block_masked_and_a_large_offset(isa: str) -> None:
    """A vocabulary mask of -inf over more than a block, before logits of one size."""
    case = logits_case(4, 4000, ignored=0.0, temperature=0.7)
    logits = case.floats["logits"] + 1e4
    logits[:, :2500] = -math.inf
    case = replace(case, floats={"logits": logits})
    case.target.clamp_(min=2500)
    check(case)


def test_masked_target_has_no_probability(backend: str) -> None:
    logits = torch.tensor([[0.0, 1.0, -math.inf]])
    stats = suder_ext.logprob_stats(logits, torch.tensor([2]))
    assert stats.logprob.item() == -math.inf
    assert stats.entropy.isfinite().all()


@pytest.mark.parametrize("ignore_index", [-100, 2**40, -(2**60), 5])
def test_garbage_in_ignored_rows(backend: str, ignore_index: int) -> None:
    case = logits_case(8, 33, ignored=0.0, ignore_index=ignore_index)
    case.target.masked_fill_(case.target == ignore_index, 6)
    case.target[[1, 4]] = ignore_index
    case.floats["logits"][1] = math.nan
    case.floats["logits"][4] = math.inf
    got = check(case)
    assert all(got[name][[1, 4]].eq(0).all() for name in OUTPUTS)


def test_all_rows_ignored(backend: str) -> None:
    case = logits_case(5, 33, ignored=1.1)
    upstream = {name: torch.full((5,), math.nan) for name in OUTPUTS}
    got, grads = gradients(case, suder_ext.logprob_stats, upstream)
    assert not grads["logits"].any()
    assert all(not got[name].any() for name in OUTPUTS)


@pytest.mark.parametrize("value", [0.0, -2.0])
def test_uniform_upstream(backend: str, value: float) -> None:
    case = logits_case(5, 33)
    upstream = {"logprob": torch.full((5,), value)}
    _, expected = oracle(case, upstream)
    _, grads = gradients(case, suder_ext.logprob_stats, upstream)
    assert_close(grads["logits"], expected["logits"], "grad_logits", torch.float32)


@pytest.mark.parametrize("vocab", [1, 2, 1024])
def test_never_above_zero(backend: str, vocab: int) -> None:
    """One logit far above the rest: log p rounds to 0 and not to a probability above 1."""
    logits = torch.zeros(64, vocab)
    logits[:, 0] = torch.linspace(0, 60, 64)
    got = suder_ext.logprob(logits, torch.zeros(64, dtype=torch.int64))
    assert (got <= 0).all()
    assert got[-1] == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1, 1500, 2999])
def test_nan_and_inf_stay_in_their_row(isa: str, bad: float, place: int) -> None:
    case = logits_case(5, 3000, ignored=0.0)
    upstream = {name: torch.ones(5) for name in OUTPUTS}
    clean, clean_grads = gradients(case, suder_ext.logprob_stats, upstream)
    case.floats["logits"][2, place] = bad
    case.target[2] = 17
    got, grads = gradients(case, suder_ext.logprob_stats, upstream)
    rest = torch.arange(5) != 2
    assert got["logprob"][2].isnan()
    assert grads["logits"][2].isnan().all()
    for name in OUTPUTS:
        assert torch.equal(got[name][rest], clean[name][rest])
    assert torch.equal(grads["logits"][rest], clean_grads["logits"][rest])


def test_a_nan_next_to_nothing_but_masked_logits(isa: str) -> None:
    logits = torch.full((1, 40), -math.inf)
    logits[0, 3] = math.nan
    assert suder_ext.logprob(logits, torch.tensor([0])).isnan().all()
    assert suder_ext.logprob(torch.full((1, 40), -math.inf), torch.tensor([0])).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_in_any_batch_and_position(isa: str, dtype: torch.dtype) -> None:
    case = logits_case(50, 1500, dtype, ignored=0.0)
    upstream = upstream_for(case)
    together, grads = gradients(case, suder_ext.logprob_stats, upstream)
    for row in (0, 7, 49):
        alone = Case({"logits": case.floats["logits"][row : row + 1]}, case.target[row : row + 1])
        part = {name: grad[row : row + 1] for name, grad in upstream.items()}
        got, grad = gradients(alone, suder_ext.logprob_stats, part)
        assert all(torch.equal(got[name][0], together[name][row]) for name in OUTPUTS)
        assert torch.equal(grad["logits"][0], grads["logits"][row])


def test_same_bits_for_any_number_of_threads(isa: str) -> None:
    case = logits_case(64, 9000)
    upstream = upstream_for(case)
    expected, expected_grads = gradients(case, suder_ext.logprob_stats, upstream)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        got, grads = gradients(case, suder_ext.logprob_stats, upstream)
        assert all(torch.equal(got[name], expected[name]) for name in OUTPUTS)
        assert torch.equal(grads["logits"], expected_grads["logits"])


def test_more_than_2_to_31_logits(fastest: str) -> None:
    """17000 x 129920; the rows are one row repeated, so that no memory is needed."""
    row = logits_case(1, 129920, torch.bfloat16, ignored=0.0)
    tokens = 17000
    assert tokens * 129920 > 2**31
    logits = row.floats["logits"].expand(tokens, -1)
    target = row.target.expand(tokens).contiguous()
    target[-1] = 5
    got = suder_ext.logprob(logits, target)
    assert (got[:-1] == got[0]).all()
    last = suder_ext.logprob(row.floats["logits"], torch.tensor([5]))
    assert got[-1] == last[0]


def test_rows_2_to_31_elements_apart(fastest: str) -> None:
    """Of 4 GiB of address space, two rows are touched."""
    case = logits_case(2, 1000, torch.bfloat16, ignored=0.0)
    room = torch.empty(2**31 + 2000, dtype=torch.bfloat16)
    far = room.as_strided((2, 1000), (2**31 + 8, 1))
    far.copy_(case.floats["logits"])
    with torch.no_grad():
        assert torch.equal(suder_ext.logprob(far, case.target), case.run(suder_ext.logprob))


def test_empty_batch(backend: str) -> None:
    logits = torch.zeros(0, 33, requires_grad=True)
    stats = suder_ext.logprob_stats(logits, torch.zeros(0, dtype=torch.int64))
    assert all(x.shape == (0,) for x in stats)
    sum(x.sum() for x in stats).backward()
    assert logits.grad is not None
    assert logits.grad.shape == (0, 33)


def test_backward_twice(backend: str) -> None:
    case = logits_case(5, 33)
    logits = case.floats["logits"].requires_grad_()
    loss = suder_ext.logprob(logits, case.target).sum()
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(loss, logits)
    assert torch.equal(first, second)


@pytest.mark.parametrize("value", [-1, 33, 2**40])
def test_target_outside_the_vocabulary(backend: str, value: int) -> None:
    case = logits_case(5, 33, ignored=0.0)
    case.target[3] = value
    with pytest.raises(IndexError, match=rf"target\[3\] is {value}.*33"):
        case.run(suder_ext.logprob)


def test_instruction_sets_agree(isa: str) -> None:
    case = logits_case(9, 5000, ignored=0.0)
    got = case.run(suder_ext.logprob)
    with use_backend("portable"):
        portable = case.run(suder_ext.logprob)
    assert_close(got, portable.double(), "logprob", torch.float32)
