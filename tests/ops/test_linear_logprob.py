"""linear_logprob and linear_logprob_stats on every backend against the float64 reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import suder_ext
from tests.ops.cases import (
    DTYPES,
    OUTPUTS,
    Case,
    gradients,
    linear_case,
    oracle,
    product_terms,
    upstream_for,
)
from tests.ops.compare import assert_close, grad_kind, rounds_each_logit
from tests.ops.layouts import LAYOUTS, strided

SHAPES = [
    (1, 1, 1),  # the smallest there is: log p is 0
    (3, 5, 7),  # below one vector in every direction
    (4, 16, 64),  # a whole number of vectors in every direction
    (7, 31, 129),  # one past, one before a whole number of vectors
    (70, 96, 1025),  # more than one tile of tokens; one column in the last tile
    (130, 200, 515),  # more than one block of features; ragged everywhere
]


def check(case: Case, upstream: dict[str, Tensor], logits: float = 1.0) -> None:
    """Results and gradients of the public function against the oracle."""
    expected, expected_grads = oracle(case, upstream)
    got, grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
    terms = product_terms(case, upstream) if rounds_each_logit(case.dtype) else {}
    for name in OUTPUTS:
        assert got[name].dtype == torch.float32
        assert_close(got[name], expected[name], name, case.dtype, logits)
        assert not got[name][case.ignored].any()
    assert bool((got["logprob"] <= 0).all())
    for name, grad in grads.items():
        assert grad.dtype == case.dtype
        kind = grad_kind(name, case.dtype)
        assert_close(grad, expected_grads[name], kind, case.dtype, logits, terms.get(name, 0.0))
    assert not grads["hidden"][case.ignored].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_float64(backend: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    case = linear_case(*shape, dtype)
    check(case, upstream_for(case))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_output_alone_equals_the_three(backend: str, dtype: torch.dtype) -> None:
    case = linear_case(19, 40, 77, dtype, temperature=0.8)
    stats = case.run(suder_ext.linear_logprob_stats)
    assert torch.equal(case.run(suder_ext.linear_logprob), stats.logprob)
    for name in OUTPUTS:
        upstream = {name: upstream_for(case)[name]}
        _, expected = oracle(case, upstream)
        _, grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
        for argument, grad in grads.items():
            assert_close(grad, expected[argument], grad_kind(argument, dtype), dtype)


@pytest.mark.parametrize(
    "wanted", [("hidden",), ("weight",), ("bias",), ("hidden", "bias"), ("weight", "bias")], ids=str
)
def test_any_subset_of_the_gradients(backend: str, wanted: tuple[str, ...]) -> None:
    case = linear_case(19, 40, 77)
    upstream = {"logprob": upstream_for(case)["logprob"]}
    _, all_grads = gradients(case, suder_ext.linear_logprob, upstream)
    _, some = gradients(case, suder_ext.linear_logprob, upstream, wanted)
    for name in wanted:
        assert_close(some[name], all_grads[name].double(), f"grad_{name}", torch.float32)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.3},
        {"temperature": 5.0},
        {"softcap": 2.0},
        {"softcap": 30.0, "temperature": 0.7},
        {"ignore_index": 3},
        {"ignore_index": -1, "softcap": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_options(backend: str, dtype: torch.dtype, options: dict[str, float]) -> None:
    case = linear_case(23, 48, 150, dtype, spread=3.0, **options)
    check(case, upstream_for(case))


def test_leading_dimensions(backend: str) -> None:
    case = linear_case(24, 16, 33)
    flat, flat_grads = gradients(case, suder_ext.linear_logprob_stats, upstream_for(case))
    shaped = replace(
        case,
        floats={**case.floats, "hidden": case.floats["hidden"].view(2, 3, 4, 16)},
        target=case.target.view(2, 3, 4),
    )
    upstream = {name: grad.view(2, 3, 4) for name, grad in upstream_for(case).items()}
    got, grads = gradients(shaped, suder_ext.linear_logprob_stats, upstream)
    for name in OUTPUTS:
        assert torch.equal(got[name], flat[name].view(2, 3, 4))
    assert torch.equal(grads["hidden"], flat_grads["hidden"].view(2, 3, 4, 16))
    assert torch.equal(grads["weight"], flat_grads["weight"])
    single = suder_ext.linear_logprob(
        case.floats["hidden"][0], case.floats["weight"], case.target[0], case.floats["bias"]
    )
    assert torch.equal(single, flat["logprob"][0])


@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_int32_targets(backend: str, tokens: int) -> None:
    case = linear_case(tokens, 8, 20)
    narrow = replace(case, target=case.target.int())
    assert torch.equal(narrow.run(suder_ext.linear_logprob), case.run(suder_ext.linear_logprob))


@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layouts_give_the_same_bits(isa: str, dtype: torch.dtype, layout: str) -> None:
    case = linear_case(21, 37, 75, dtype)
    upstream = upstream_for(case)
    expected, expected_grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
    moved = replace(case, floats={n: strided(t, layout) for n, t in case.floats.items()})
    got, grads = gradients(moved, suder_ext.linear_logprob_stats, upstream)
    for name in OUTPUTS:
        assert torch.equal(got[name], expected[name]), name
    for name, grad in grads.items():
        assert torch.equal(grad, expected_grads[name]), name


@given(
    tokens=st.integers(0, 40),
    features=st.integers(1, 70),
    vocab=st.one_of(st.integers(1, 40), st.integers(41, 700)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
    bias=st.booleans(),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    spread=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    temperature=st.sampled_from([1.0, 0.5, 3.0]),
    softcap=st.sampled_from([None, 2.0, 50.0]),
    outputs=st.sets(st.sampled_from(OUTPUTS), min_size=1),
    layout=st.sampled_from(LAYOUTS),
)
@example(5, 1, 1, torch.bfloat16, 0, False, 0.0, 1.0, 1.0, None, {"logprob"}, "contiguous")
@example(2, 1, 1, torch.bfloat16, 745, True, 0.0, 0.0, 1.0, None, {"lse"}, "contiguous")
@example(2, 3, 17, torch.float16, 1, True, 1.0, 10.0, 0.5, 2.0, set(OUTPUTS), "columns")
def test_property_matches_float64(
    backend: str,
    tokens: int,
    features: int,
    vocab: int,
    dtype: torch.dtype,
    seed: int,
    bias: bool,
    ignored: float,
    spread: float,
    temperature: float,
    softcap: float | None,
    outputs: set[str],
    layout: str,
) -> None:
    case = linear_case(
        tokens,
        features,
        vocab,
        dtype,
        seed=seed,
        bias=bias,
        ignored=ignored,
        spread=spread,
        temperature=temperature,
        softcap=softcap,
    )
    case = replace(case, floats={n: strided(t, layout) for n, t in case.floats.items()})
    upstream = upstream_for(case, seed, tuple(name for name in OUTPUTS if name in outputs))
    logits = case.floats["hidden"].double() @ case.floats["weight"].double().t()
    largest = float(logits.abs().max()) / temperature if logits.numel() else 0.0
    check(case, upstream, logits=max(1.0, largest))
