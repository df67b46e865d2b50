"""sequence_reduce and what is built on it: values, gradients, NaN for nothing scored."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from suder_ext import reference
from suder_ext.functional import sequence_reduce
from tests.ops.backends import use_backend
from tests.tolerances import TOLERANCES

CLOSE = TOLERANCES["sequence_reduce", "cpu", torch.float32]
IGNORED = -100


def batch(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A fifth of the tokens ignored, with NaN where nothing may look."""
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    ignored = torch.rand(tokens, generator=generator) < 0.2
    logprob = -5 * torch.rand(tokens, generator=generator)
    target = torch.randint(0, 50, (tokens,), generator=generator).masked_fill(ignored, IGNORED)
    offsets = torch.tensor([0, *itertools.accumulate(lengths)])
    return logprob.masked_fill(ignored, math.nan), target, offsets


@pytest.mark.parametrize("mean", [True, False], ids=["mean", "sum"])
@pytest.mark.parametrize("lengths", [[5, 1, 0, 9], [], [0], [576] * 8, [100_000, 3]], ids=str)
def test_matches_float64(lengths: list[int], mean: bool, backend: str) -> None:
    logprob, target, cu_seqlens = batch(lengths)
    ours, oracle = logprob.clone().requires_grad_(), logprob.double().requires_grad_()
    value, count = sequence_reduce(ours, target, cu_seqlens, mean=mean)
    expected, expected_count = reference.sequence_reduce(oracle, target, cu_seqlens, mean=mean)
    assert torch.equal(count, expected_count)
    torch.testing.assert_close(value.double(), expected, equal_nan=True, **CLOSE)
    # A NaN upstream gradient of a sequence without tokens must reach none.
    upstream = torch.randn(value.shape).masked_fill(count == 0, math.nan)
    (grad,) = torch.autograd.grad(value, ours, upstream)
    (expected_grad,) = torch.autograd.grad(expected, oracle, upstream.double())
    torch.testing.assert_close(grad.double(), expected_grad, **CLOSE)
    assert (grad[target == IGNORED] == 0).all()


def test_nothing_scored_is_nan_and_not_the_best_reward(backend: str) -> None:
    target = torch.tensor([1, IGNORED, IGNORED])
    value, count = sequence_reduce(
        torch.tensor([-3.0, 0.0, 0.0]), target, torch.tensor([0, 1, 3, 3]), mean=True
    )
    assert count.tolist() == [1, 0, 0]
    assert value[0] == -3
    assert value[1:].isnan().all()


def test_a_sequence_has_the_same_bits_anywhere(isa: str) -> None:
    logprob, target, _ = batch([1000])
    outcomes = []
    for before, threads in ((0, 1), (7, 1), (70_000, 2)):
        torch.set_num_threads(threads)
        filler = torch.full((before,), -1.0)
        value, _ = sequence_reduce(
            torch.cat([filler, logprob]),
            torch.cat([filler.long(), target]),
            torch.tensor([0, before, before + 1000]),
            mean=True,
        )
        outcomes.append(value[1])
    with use_backend("portable"):
        outcomes.append(sequence_reduce(logprob, target, torch.tensor([0, 1000]), mean=True)[0][0])
    assert len({x.item() for x in outcomes}) == 1


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_offsets_of_either_width(dtype: torch.dtype) -> None:
    logprob, target, cu_seqlens = batch([5, 6])
    value, _ = sequence_reduce(logprob, target, cu_seqlens.to(dtype), mean=False)
    expected, _ = sequence_reduce(logprob, target, cu_seqlens, mean=False)
    assert torch.equal(value, expected)


@pytest.mark.parametrize("entries", [[1, 5], [0, 3, 2, 5], [0, 4], [0, 6], [-1, 5]], ids=str)
def test_bad_offsets(entries: list[int], backend: str) -> None:
    with pytest.raises(ValueError, match="cu_seqlens"):
        sequence_reduce(
            torch.zeros(5), torch.zeros(5, dtype=torch.int64), torch.tensor(entries), mean=True
        )
