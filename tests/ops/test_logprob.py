"""logprob and logprob_stats on every backend against the float64 reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import suder_ext
from tests.ops.cases import DTYPES, OUTPUTS, Case, gradients, logits_case, oracle, upstream_for
from tests.ops.compare import assert_close
from tests.ops.layouts import LAYOUTS, strided

SHAPES = [
    (1, 1),  # the smallest there is: log p is 0
    (3, 7),  # below one vector
    (5, 64),  # a whole number of vectors
    (70, 1025),  # one past the block that a row is read in
    (3, 5003),  # several blocks, ragged
]


def check(case: Case, upstream: dict[str, Tensor], logits: float = 1.0) -> None:
    """Results and gradients of the public function against the oracle."""
    expected, expected_grads = oracle(case, upstream)
    got, grads = gradients(case, suder_ext.logprob_stats, upstream)
    for name in OUTPUTS:
        assert got[name].dtype == torch.float32
        assert_close(got[name], expected[name], name, case.dtype, logits)
        assert not got[name][case.ignored].any()
    assert bool((got["logprob"] <= 0).all())
    assert grads["logits"].dtype == case.dtype
    assert_close(grads["logits"], expected_grads["logits"], "grad_logits", case.dtype, logits)
    assert not grads["logits"][case.ignored].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_float64(backend: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    case = logits_case(*shape, dtype)
    check(case, upstream_for(case))


@pytest.mark.parametrize("name", OUTPUTS)
def test_one_output_alone(backend: str, name: str) -> None:
    case = logits_case(19, 77, temperature=0.8)
    stats = case.run(suder_ext.logprob_stats)
    assert torch.equal(case.run(suder_ext.logprob), stats.logprob)
    upstream = {name: upstream_for(case)[name]}
    _, expected = oracle(case, upstream)
    _, grads = gradients(case, suder_ext.logprob_stats, upstream)
    assert_close(grads["logits"], expected["logits"], "grad_logits", torch.float32)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.3},
        {"softcap": 2.0},
        {"softcap": 30.0, "temperature": 5.0},
        {"ignore_index": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_options(backend: str, dtype: torch.dtype, options: dict[str, float]) -> None:
    case = logits_case(23, 150, dtype, **options)
    check(case, upstream_for(case))


def test_leading_dimensions(backend: str) -> None:
    case = logits_case(24, 33)
    flat, flat_grads = gradients(case, suder_ext.logprob_stats, upstream_for(case))
    shaped = replace(
        case, floats={"logits": case.floats["logits"].view(4, 6, 33)}, target=case.target.view(4, 6)
    )
    upstream = {name: grad.view(4, 6) for name, grad in upstream_for(case).items()}
    got, grads = gradients(shaped, suder_ext.logprob_stats, upstream)
    for name in OUTPUTS:
        assert torch.equal(got[name], flat[name].view(4, 6))
    assert torch.equal(grads["logits"], flat_grads["logits"].view(4, 6, 33))
    assert torch.equal(
        suder_ext.logprob(case.floats["logits"][0], case.target[0]), flat["logprob"][0]
    )


@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layouts_give_the_same_bits(isa: str, dtype: torch.dtype, layout: str) -> None:
    case = logits_case(21, 75, dtype)
    upstream = upstream_for(case)
    expected, expected_grads = gradients(case, suder_ext.logprob_stats, upstream)
    moved = replace(case, floats={"logits": strided(case.floats["logits"], layout)})
    got, grads = gradients(moved, suder_ext.logprob_stats, upstream)
    for name in OUTPUTS:
        assert torch.equal(got[name], expected[name]), name
    assert torch.equal(grads["logits"], expected_grads["logits"])


@given(
    tokens=st.integers(0, 40),
    vocab=st.one_of(st.integers(1, 70), st.integers(1000, 3000)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    spread=st.sampled_from([0.0, 0.1, 3.0, 100.0]),
    temperature=st.sampled_from([1.0, 0.5, 3.0]),
    softcap=st.sampled_from([None, 2.0, 50.0]),
    outputs=st.sets(st.sampled_from(OUTPUTS), min_size=1),
    layout=st.sampled_from(LAYOUTS),
)
@example(5, 1, torch.bfloat16, 0, 0.0, 1.0, 1.0, None, {"logprob"}, "contiguous")
def test_property_matches_float64(
    backend: str,
    tokens: int,
    vocab: int,
    dtype: torch.dtype,
    seed: int,
    ignored: float,
    spread: float,
    temperature: float,
    softcap: float | None,
    outputs: set[str],
    layout: str,
) -> None:
    case = logits_case(
        tokens,
        vocab,
        dtype,
        seed=seed,
        ignored=ignored,
        spread=spread,
        temperature=temperature,
        softcap=softcap,
    )
    case = replace(case, floats={"logits": strided(case.floats["logits"], layout)})
    upstream = upstream_for(case, seed, tuple(name for name in OUTPUTS if name in outputs))
    logits = case.floats["logits"].abs()
    largest = float(logits.max()) / temperature if logits.numel() else 0.0
    check(case, upstream, logits=max(1.0, largest))
