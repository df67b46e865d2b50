"""Same inputs, same bits: any number of threads, any batch, any position, any run."""

from __future__ import annotations

import pytest
import torch

import suder_ext
from tests.ops.cases import DTYPES, OUTPUTS, Case, gradients, linear_case, upstream_for


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_number_of_threads(isa: str, dtype: torch.dtype) -> None:
    case = linear_case(200, 40, 700, dtype)
    upstream = upstream_for(case)
    expected, expected_grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        got, grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
        assert equal(got, expected), threads
        assert equal(grads, expected_grads), threads


@pytest.mark.parametrize("features", [40, 1100])  # one block of sums, and several
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_batch_and_position(isa: str, dtype: torch.dtype, features: int) -> None:
    case = linear_case(150, features, 700, dtype)
    upstream = upstream_for(case)
    together, grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(3))
    # Few tokens go another way than many: up to 14 in AVX-512, 6 in AVX2, 3 elsewhere.
    few = [order[:n] for n in (1, 3, 4, 6, 7, 14, 15)]
    for rows in (order, *few, order[1:18], order[18:115]):
        part = Case({**case.floats, "hidden": case.floats["hidden"][rows]}, case.target[rows])
        part_upstream = {name: grad[rows] for name, grad in upstream.items()}
        got, part_grads = gradients(
            part, suder_ext.linear_logprob_stats, part_upstream, ("hidden",)
        )
        for name in OUTPUTS:
            assert torch.equal(got[name], together[name][rows]), name
        assert torch.equal(part_grads["hidden"], grads["hidden"][rows])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_else_is_asked_for(isa: str, dtype: torch.dtype) -> None:
    """Which outputs are asked for, and whether gradients are, changes no bit of the others."""
    case = linear_case(70, 40, 300, dtype)
    with torch.no_grad():
        alone = case.run(suder_ext.linear_logprob)
    upstream = upstream_for(case)
    stats, grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
    assert torch.equal(alone, stats["logprob"])
    for name in case.floats:
        _, one = gradients(case, suder_ext.linear_logprob_stats, upstream, (name,))
        assert torch.equal(one[name], grads[name]), name


@pytest.mark.parametrize("options", [{}, {"softcap": 3.0, "temperature": 0.7}], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kept_and_recomputed_logits(
    isa: str, dtype: torch.dtype, options: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of none, some or all logits kept for the backward, the gradients are the same."""
    case = linear_case(210, 40, 300, dtype, **options)
    upstream = upstream_for(case)
    expected, expected_grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
    for kept in (0, 1, 120 * 224, 230 * 224):
        monkeypatch.setattr("suder_ext.functional.logprobs.LOGITS_KEPT", kept)
        got, grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
        assert equal(got, expected), kept
        assert equal(grads, expected_grads), kept


def test_sequence_rewards_do_not_depend_on_the_batch(isa: str) -> None:
    case = linear_case(60, 16, 90, ignored=0.0)
    hidden, weight, bias = case.floats.values()
    cu = torch.tensor([0, 7, 20, 21, 60])
    together = suder_ext.linear_sequence_logprob(hidden, weight, case.target, cu, bias)
    for i, (start, end) in enumerate(zip(cu[:-1].tolist(), cu[1:].tolist(), strict=True)):
        alone = suder_ext.linear_sequence_logprob(
            hidden[start:end], weight, case.target[start:end], torch.tensor([0, end - start]), bias
        )
        assert alone[0] == together[i]
