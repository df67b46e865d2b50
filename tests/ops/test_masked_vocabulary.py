"""Logits of -inf, as masks of the vocabulary make them: picked or not, anywhere, every function."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import suder_ext
from tests.ops.cases import (
    DTYPES,
    OUTPUTS,
    Case,
    gradients,
    linear_case,
    logits_case,
    oracle,
    product_terms,
    upstream_for,
)
from tests.ops.compare import assert_close, grad_kind, rounds_each_logit
from tests.ops.pairs import workspace

SOFTMAX: list[dict[str, Any]] = [{}, {"temperature": 0.7}, {"softcap": 5.0}]


def check(case: Case, function: Any) -> None:
    """Values and gradients of all three results; -inf is right only for a log p."""
    upstream = upstream_for(case)
    expected, expected_grads = oracle(case, upstream)
    got, grads = gradients(case, function, upstream)
    terms = {}
    if "weight" in case.floats and rounds_each_logit(case.dtype):
        terms = product_terms(finite(case), upstream)
    for name in OUTPUTS:
        assert_close(got[name], expected[name], name, case.dtype)
        assert name == "logprob" or got[name].isfinite().all()
    for name, grad in grads.items():
        assert grad.isfinite().all(), name
        kind = "grad_logits" if name == "logits" else grad_kind(name, case.dtype)
        assert_close(grad, expected_grads[name], kind, case.dtype, terms=terms.get(name, 0.0))


def finite(case: Case) -> Case:
    return replace(case, floats={n: t.nan_to_num(neginf=-1e4) for n, t in case.floats.items()})


def masks(vocab: int) -> dict[str, Tensor]:
    """Entries that are masked out: True."""
    entry = torch.arange(vocab)
    return {
        "first": entry == 0,
        "last": entry == vocab - 1,
        "first half": entry < vocab // 2,
        "last half": entry >= vocab // 2,
        "every other": entry % 2 == 1,
        "all but one": entry != vocab // 3,
        "all but the last": entry != vocab - 1,
    }


@pytest.mark.parametrize("options", SOFTMAX, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab", [3, 70, 1500])
def test_logits(backend: str, vocab: int, dtype: torch.dtype, options: dict[str, Any]) -> None:
    for mask in masks(vocab).values():
        case = logits_case(12, vocab, dtype, **options)
        case.floats["logits"].masked_fill_(mask, -math.inf)
        case.target[0], case.target[1] = int(mask.nonzero()[0]), int((~mask).nonzero()[0])
        check(case, suder_ext.logprob_stats)


@pytest.mark.parametrize("options", SOFTMAX, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab", [3, 70, 600])
def test_bias(backend: str, vocab: int, dtype: torch.dtype, options: dict[str, Any]) -> None:
    for mask in masks(vocab).values():
        case = linear_case(12, 8, vocab, dtype, **options)
        case.floats["bias"].masked_fill_(mask, -math.inf)
        case.target[0], case.target[1] = int(mask.nonzero()[0]), int((~mask).nonzero()[0])
        check(case, suder_ext.linear_logprob_stats)


@given(data=st.data())
def test_several_entries_a_row(backend: str, data: st.DataObject) -> None:
    """Any of the logits -inf, any of the entries picked, some of them not asked for."""
    dtype = data.draw(st.sampled_from([*DTYPES, torch.float64]))
    vocab, entries = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    some = st.sampled_from([-math.inf, -3.0, 0.0, 1.5, 4.0])
    rows = data.draw(st.lists(st.lists(some, min_size=vocab, max_size=vocab), min_size=1))
    for row in rows:
        row[data.draw(st.integers(0, vocab - 1))] = 0.5  # no distribution has nothing in it
    picks = st.lists(st.integers(0, vocab - 1), min_size=entries, max_size=entries)
    index = torch.tensor([data.draw(picks) for _ in rows])
    mask = torch.tensor([[data.draw(st.booleans()) for _ in range(entries)] for _ in rows])
    temperature = data.draw(st.sampled_from([1.0, 0.5]))
    leaf = torch.tensor(rows).to(dtype).requires_grad_()
    wide = leaf.detach().double().requires_grad_()
    expected = torch.log_softmax(wide / temperature, -1).gather(-1, index).masked_fill(~mask, 0.0)
    got = suder_ext.selective_log_softmax(leaf, index, temperature, mask)
    limits = torch.float32 if dtype == torch.float64 else dtype
    assert_close(got.detach(), expected.detach(), "logprob", limits)
    upstream = torch.linspace(-1, 2, index.numel()).view(index.shape)
    got.backward(upstream.to(got.dtype))
    expected.backward(upstream.double())
    assert leaf.grad is not None
    assert wide.grad is not None
    # Of one entry picked several times, upstream gradients that may cancel to nothing.
    terms = float(upstream.abs().sum(-1).max())
    assert_close(leaf.grad, wide.grad, "grad_logits/parts", limits, terms=terms)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_masked_entry_picked_first(backend: str, dtype: torch.dtype) -> None:
    logits = torch.tensor([[-math.inf, 0.0, 1.0]], dtype=dtype)
    got = suder_ext.selective_log_softmax(logits, torch.tensor([[0, 1, 2]]))
    expected = [-math.inf, -1.3132616875182228, -0.31326168751822286]
    assert_close(got, torch.tensor([expected], dtype=torch.float64), "logprob", torch.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy(backend: str, smoothing: float) -> None:
    """A uniform label asks for the masked entries, too: the loss is infinite, gradients are not."""
    case = linear_case(12, 8, 70)
    case.floats["bias"][::2] = -math.inf
    case.target[0], case.target[1] = 2, 3
    leaves = {name: t.requires_grad_() for name, t in case.floats.items()}
    wide = {name: t.detach().double().requires_grad_() for name, t in leaves.items()}
    log_p = torch.log_softmax(wide["hidden"] @ wide["weight"].t() + wide["bias"], -1)
    ignored = case.target == -100
    picked = log_p.gather(-1, case.target.clamp(min=0)[:, None])[:, 0]
    expected = -picked
    if smoothing:
        uniform = -smoothing * log_p.mean(-1)
        expected = uniform - (1 - smoothing) * picked if smoothing < 1 else uniform
    expected = expected.masked_fill(ignored, 0.0)
    got = suder_ext.linear_cross_entropy(
        leaves["hidden"],
        leaves["weight"],
        case.target,
        linear_bias=leaves["bias"],
        reduction="none",
        label_smoothing=smoothing,
    )
    assert_close(got.detach(), expected.detach(), "logprob", torch.float32)
    got.sum().backward()
    expected.sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        oracle_grad = wide[name].grad
        assert oracle_grad is not None
        assert_close(leaf.grad, oracle_grad, f"grad_{name}/parts", torch.float32)


@pytest.mark.parametrize("chunks", [False, True], ids=["whole", "in chunks"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_sequences_and_pairs(backend: str, reduction: Any, chunks: bool) -> None:
    """Masked entries that no token has change nothing for the others."""
    case = linear_case(12, 8, 70)
    mask = torch.arange(70) % 3 == 1
    case.target[mask[case.target.clamp(min=0)] & (case.target >= 0)] = 0
    case.floats["bias"].masked_fill_(mask, -math.inf)
    cu = torch.tensor([0, 3, 6, 8, 12])
    masked = {name: t.requires_grad_() for name, t in case.floats.items()}
    kept = {
        "hidden": masked["hidden"].detach().double().requires_grad_(),
        "weight": masked["weight"].detach()[~mask].double().requires_grad_(),
        "bias": masked["bias"].detach()[~mask].double().requires_grad_(),
    }
    place = (~mask).cumsum(0) - 1
    target = torch.where(case.target < 0, case.target, place[case.target.clamp(min=0)])
    with workspace(0 if chunks else 10**9):
        got = suder_ext.linear_preference_loss(
            target=case.target, cu_seqlens=cu, reduction=reduction, **masked
        )
        got.loss.sum().backward()
    expected = suder_ext.reference.linear_preference_loss(
        target=target, cu_seqlens=cu, reduction=reduction, **kept
    )
    expected.loss.sum().backward()
    for one, other in zip(got, expected, strict=True):
        assert_close(one.detach(), other.detach(), "logprob", torch.float32)
    for name, leaf in masked.items():
        assert leaf.grad is not None
        oracle_grad = kept[name].grad
        assert oracle_grad is not None
        grad = leaf.grad if name == "hidden" else leaf.grad[~mask]
        assert_close(grad, oracle_grad, f"grad_{name}", torch.float32)
        assert name == "hidden" or not leaf.grad[mask].any()
