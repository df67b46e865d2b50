"""linear_preference_loss with reduction "mean" on every backend against the float64 reference."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import suder_ext
from suder_ext import linear_preference_loss, reference
from suder_ext._ops import pair_chunks
from suder_ext.preference_options import F_DIVERGENCES, LOSS_TYPES, TAKES_F_DIVERGENCE
from tests.ops.cases import DTYPES, Case
from tests.ops.compare import assert_close, grad_kind
from tests.ops.pairs import loss_options, outcome, pair_case, terms_of, workspace

ROOMY = 2**24
SIZES = [0, 1, 16 * 72, 32 * 112, 3 * 32 * 112 + 5, ROOMY]  # floats: no pair fits, one, some, all


def check(case: Case, upstream: float = 1.0, wanted: tuple[str, ...] | None = None) -> None:
    """Loss, rewards and gradients of the public function against the oracle."""
    expected = outcome(case.double(), reference.linear_preference_loss, upstream, wanted)
    got = outcome(case, linear_preference_loss, upstream, wanted)
    terms, of_loss = terms_of(case)
    assert_close(got.loss, expected.loss, "logprob", case.dtype, terms=of_loss)
    for ours, theirs in zip(got.rewards, expected.rewards, strict=True):
        assert not ours.requires_grad
        assert_close(ours, theirs, "logprob", case.dtype, logits=100.0)
    for name, grad in got.grads.items():
        assert grad.dtype == case.dtype
        size = abs(upstream) * terms[name]
        assert_close(grad, expected.grads[name], grad_kind(name, case.dtype), case.dtype, 1.0, size)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@settings(max_examples=12)
@given(
    pairs=st.integers(1, 8),
    longest=st.sampled_from([1, 6, 40]),
    vocab=st.sampled_from([1, 7, 70, 600]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
    with_reference=st.booleans(),
    bias=st.booleans(),
    ignored=st.sampled_from([0.0, 0.3, 0.7]),
    softcap=st.sampled_from([None, 5.0]),
    upstream=st.sampled_from([1.0, -3.0, 0.7]),
    divergence=st.sampled_from(F_DIVERGENCES),
    floats=st.sampled_from(SIZES),
)
def test_property_matches_float64(
    backend: str,
    loss_type: str,
    pairs: int,
    longest: int,
    vocab: int,
    dtype: torch.dtype,
    seed: int,
    with_reference: bool,
    bias: bool,
    ignored: float,
    softcap: float | None,
    upstream: float,
    divergence: str,
    floats: int,
) -> None:
    takes_divergence = with_reference and loss_type in TAKES_F_DIVERGENCE
    case = pair_case(
        pairs,
        dtype,
        seed=seed,
        longest=longest,
        vocab=vocab,
        with_reference=with_reference,
        bias=bias,
        ignored=ignored,
        softcap=softcap,
        f_divergence=divergence if takes_divergence else "reverse_kl",
        **loss_options(loss_type),
    )
    with workspace(floats):
        check(case, upstream)


@pytest.mark.parametrize("floats", SIZES)
@pytest.mark.parametrize(
    "wanted", [("hidden",), ("weight",), ("bias",), ("hidden", "bias"), ("weight", "bias")], ids=str
)
def test_any_subset_of_the_gradients(backend: str, wanted: tuple[str, ...], floats: int) -> None:
    with workspace(floats):
        check(pair_case(5, ignored=0.3), wanted=wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_size_of_the_chunks_changes_only_sums(
    isa: str, loss_type: str, dtype: torch.dtype
) -> None:
    case = pair_case(7, dtype, longest=20, **loss_options(loss_type))
    with workspace(ROOMY):
        expected = outcome(case, linear_preference_loss)
    for floats in SIZES:
        with workspace(floats):
            got = outcome(case, linear_preference_loss)
        assert torch.equal(got.loss, expected.loss)
        assert torch.equal(got.grads["hidden"], expected.grads["hidden"])
        assert all(torch.equal(a, b) for a, b in zip(got.rewards, expected.rewards, strict=True))


@pytest.mark.parametrize("loss_type", ["sigmoid", "cpo", "aot_unpaired"])
def test_without_chunks_the_same(backend: str, loss_type: str) -> None:
    """Under no_grad, with few tokens, and as the mean of the losses of the pairs."""
    case = pair_case(6, **loss_options(loss_type))
    with workspace(3 * 32 * 112):
        chunked = outcome(case, linear_preference_loss)
    whole = outcome(case, linear_preference_loss)
    with torch.no_grad():
        alone = case.run(linear_preference_loss)
    assert torch.equal(whole.loss, chunked.loss)
    assert torch.equal(alone.loss, chunked.loss)
    assert torch.equal(whole.grads["hidden"], chunked.grads["hidden"])
    pairs = replace(case, options={**case.options, "reduction": "none"}).run(linear_preference_loss)
    assert_close(chunked.loss, pairs.loss.double().mean(), "logprob", torch.float32)
    assert torch.equal(chunked.rewards[0], pairs.chosen_reward)


@given(
    lengths=st.lists(st.integers(0, 9), max_size=9).map(lambda x: x[: len(x) // 2 * 2]),
    most=st.integers(0, 40),
)
def test_chunks_are_whole_pairs_as_many_as_fit(lengths: list[int], most: int) -> None:
    offsets = [0, *torch.tensor(lengths, dtype=torch.int64).cumsum(0).tolist()]
    chunks = list(pair_chunks.chunks_of(offsets, most))
    assert chunks[0][0] == 0
    assert chunks[-1][1] == len(lengths)
    assert all(last == first for (_, last), (first, _) in pairwise(chunks))
    for first, last in chunks:
        assert (last - first) % 2 == 0
        assert offsets[last] - offsets[first] <= most or last - first == 2
        if last < len(lengths):  # the next pair did not fit
            assert offsets[last + 2] - offsets[first] > most


@pytest.mark.parametrize(("floats", "chunks"), [(0, 4), (2 * 32 * 112, 2), (4 * 32 * 112, 1)])
def test_logits_of_a_chunk_are_computed_once(fastest: str, floats: int, chunks: int) -> None:
    """Four pairs of 32 tokens each; what was kept needs no second look at the hidden states."""
    from suder_ext._ops.cpu import chunked_head

    case = pair_case(4, longest=1, vocab=112)
    cu = torch.arange(9) * 16
    floats_of = {**case.floats, "hidden": torch.randn(128, 12)}
    case = Case(floats_of, torch.randint(112, (128,)), {"cu_seqlens": cu, "reduction": "mean"})
    forward, backward = chunked_head.run_forward, chunked_head.run_backward
    with (
        workspace(floats),
        mock.patch.object(chunked_head, "run_forward", wraps=forward) as forwards,
        mock.patch.object(chunked_head, "run_backward", wraps=backward) as backwards,
    ):
        outcome(case, linear_preference_loss)
    assert forwards.call_count == backwards.call_count == chunks
    kept = [call.kwargs["logits_size"] for call in backwards.call_args_list]
    assert kept == [min(floats, 128 * 112)] * chunks


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_for_any_number_of_threads(isa: str, dtype: torch.dtype) -> None:
    case = pair_case(6, dtype, longest=60, features=40, vocab=700)
    with workspace(3 * 32 * 112 * 7):
        expected = outcome(case, linear_preference_loss)
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            got = outcome(case, linear_preference_loss)
            assert torch.equal(got.loss, expected.loss)
            for name, grad in got.grads.items():
                assert torch.equal(grad, expected.grads[name]), (threads, name)


def without_pair(case: Case, pair: int) -> Case:
    cu = case.options["cu_seqlens"]
    first, last = cu[2 * pair].item(), cu[2 * pair + 2].item()
    options = dict(case.options)
    options["cu_seqlens"] = torch.cat([cu[: 2 * pair + 1], cu[2 * pair + 3 :] - (last - first)])
    if "ref_logprob" in options:
        refs = options["ref_logprob"]
        options["ref_logprob"] = torch.cat([refs[: 2 * pair], refs[2 * pair + 2 :]])
    hidden = case.floats["hidden"]
    return replace(
        case,
        floats={**case.floats, "hidden": torch.cat([hidden[:first], hidden[last:]])},
        target=torch.cat([case.target[:first], case.target[last:]]),
        options=options,
    )


@pytest.mark.parametrize("floats", [0, ROOMY])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_a_pair_without_tokens_takes_no_part(backend: str, loss_type: str, floats: int) -> None:
    """The loss is that of the other pairs; hidden states of its other sequence may be NaN."""
    case = pair_case(4, ignored=0.0, **loss_options(loss_type))
    cu = case.options["cu_seqlens"]
    case.target[cu[2] : cu[3]] = -100
    left_out, rest = slice(cu[2], cu[4]), torch.arange(4) != 1
    with workspace(floats):
        clean = outcome(case, linear_preference_loss)
        check(case)
        alone = outcome(without_pair(case, 1), linear_preference_loss)
        case.floats["hidden"][left_out] = math.nan
        dirty = outcome(case, linear_preference_loss)
    assert torch.equal(dirty.loss, clean.loss)
    assert torch.equal(dirty.loss, alone.loss)
    assert dirty.rewards[0].isfinite().equal(rest)
    assert not dirty.grads["hidden"][left_out].any()
    for name, grad in dirty.grads.items():
        assert torch.equal(grad, clean.grads[name]), name


@pytest.mark.parametrize("floats", [0, ROOMY])
def test_no_pair_is_left(backend: str, floats: int) -> None:
    none = pair_case(0)
    ignored = pair_case(3, ignored=1.1)
    for case in (none, ignored):
        with workspace(floats):
            got = outcome(case, linear_preference_loss)
        assert got.loss.isnan()
        assert got.loss.shape == ()
        assert all(reward.isnan().all() for reward in got.rewards)
        for name, grad in got.grads.items():
            assert grad.shape == case.floats[name].shape
            assert not grad.any()


@pytest.mark.parametrize("floats", [0, ROOMY])
def test_nan_stays_in_its_pair(isa: str, floats: int) -> None:
    case = pair_case(4, ignored=0.0)
    cu = case.options["cu_seqlens"]
    with workspace(floats):
        clean = outcome(case, linear_preference_loss)
        case.floats["hidden"][cu[2]] = math.nan
        dirty = outcome(case, linear_preference_loss)
    assert dirty.loss.isnan()
    others = torch.ones(len(case.target), dtype=torch.bool)
    others[cu[2] : cu[4]] = False
    assert torch.equal(dirty.grads["hidden"][others], clean.grads["hidden"][others])


@pytest.mark.parametrize("floats", [0, ROOMY])
@pytest.mark.parametrize("upstream", [0.0, -1.0])
def test_upstream(backend: str, floats: int, upstream: float) -> None:
    with workspace(floats):
        check(pair_case(4), upstream)
        if not upstream:
            grads = outcome(pair_case(4), linear_preference_loss, upstream).grads
            assert not any(grad.any() for grad in grads.values())


def test_a_loss_scale_comes_before_the_rounding(isa: str) -> None:
    """Gradients below the smallest float16, until they are multiplied."""
    case = pair_case(4, torch.float16, beta=1e-8)
    with workspace(0):
        check(case, upstream=2.0**16)
        grads = outcome(case, linear_preference_loss, 2.0**16).grads
    assert all(grad.any() for grad in grads.values())


def test_rows_are_counted_in_the_whole_batch(fastest: str) -> None:
    case = pair_case(4, ignored=0.0)
    case.target[-1] = 70
    row = len(case.target) - 1
    for floats in (0, ROOMY):
        with workspace(floats), pytest.raises(IndexError, match=rf"target\[{row}\] is 70"):
            outcome(case, linear_preference_loss)


@pytest.mark.parametrize("wrong", [[0, 3, 2, 4, 6], [1, 2, 3, 4, 6], [0, 2, 3, 4, 5]])
def test_wrong_offsets(fastest: str, wrong: list[int]) -> None:
    case = pair_case(2, longest=1)
    hidden = case.floats["hidden"].repeat(2, 1)[:6].requires_grad_()
    arguments = hidden, case.floats["weight"], torch.zeros(6, dtype=torch.int64)
    with workspace(0), pytest.raises(ValueError, match="cu_seqlens"):
        linear_preference_loss(*arguments, torch.tensor(wrong), reduction="mean")


def test_narrow_arguments(backend: str) -> None:
    """int32 targets and offsets, a bfloat16 reference; weights whose rows are apart."""
    case = pair_case(4)
    narrow = replace(
        case,
        target=case.target.int(),
        floats={**case.floats, "weight": case.floats["weight"].t().contiguous().t()},
        options={
            **case.options,
            "cu_seqlens": case.options["cu_seqlens"].int(),
            "ref_logprob": case.options["ref_logprob"].bfloat16(),
        },
    )
    with workspace(0):
        check(narrow)


def test_autocast(isa: str) -> None:
    case = pair_case(4)
    rounded = replace(case, floats={name: t.bfloat16() for name, t in case.floats.items()})
    with workspace(0):
        expected = outcome(rounded, linear_preference_loss)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = outcome(case, linear_preference_loss)
    assert torch.equal(got.loss, expected.loss)
    for name, grad in got.grads.items():
        assert grad.dtype == torch.float32
        assert torch.equal(grad, expected.grads[name].float())


def test_bad_reduction() -> None:
    for function in (linear_preference_loss, suder_ext.reference.linear_preference_loss):
        case = pair_case(2)
        with pytest.raises(ValueError, match=r"reduction .*'sum'"):
            replace(case, options={**case.options, "reduction": "sum"}).run(function)


@pytest.mark.parametrize("offsets_on", ["cpu", "meta"])
def test_offsets_on_the_cpu_for_tensors_elsewhere(offsets_on: str) -> None:
    """Meta tensors stand for CUDA's, whose pairs do not go in chunks."""
    hidden = torch.empty(6, 5, device="meta", dtype=torch.float32, requires_grad=True)
    weight = torch.empty(7, 5, device="meta", dtype=torch.float32)
    target = torch.empty(6, device="meta", dtype=torch.int64)
    offsets = torch.tensor([0, 1, 3, 4, 6]).to(offsets_on)
    result = linear_preference_loss(hidden, weight, target, offsets, reduction="mean")
    assert (result.loss.shape, result.chosen_reward.shape) == ((), (2,))
    assert "suder_linear_preference" not in result.loss.grad_fn.name()
    (grad,) = torch.autograd.grad(result.loss, hidden)
    assert (grad.shape, grad.dtype) == (hidden.shape, hidden.dtype)
    with pytest.raises(ValueError, match="cu_seqlens takes the device of hidden"):
        linear_preference_loss(hidden, weight, target, torch.tensor([0, 3, 6]))
