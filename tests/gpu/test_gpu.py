"""The CUDA kernels on a GPU against the float64 oracle on the CPU.

`benchmarks/gpu_check.sh` runs this once for each way through the linear head (SUDER_CUDA_HEAD).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch

import suder_ext
from suder_ext import _workspace
from suder_ext._ops.cuda import cards, logit_gradients
from tests.ops import kl_cases
from tests.ops.cases import (
    DTYPES,
    OUTPUTS,
    Case,
    gradients,
    linear_case,
    logits_case,
    oracle,
    upstream_for,
)
from tests.ops.compare import assert_close
from tests.ops.pairs import outcome, pair_case, terms_of

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif(
        torch.cuda.is_available() and not cards.has_code_for(None),
        reason=f"CUDA tensors run the reference: {cards.reason()}",
    ),
]
SHAPES = [(1, 8, 1), (7, 31, 129), (130, 200, 515), (600, 64, 20000), (1030, 256, 50257)]


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """An error where something waits for the device.

    torch warns, once a process, that this mode is a prototype, and warnings are errors here.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def on_gpu(case: Case) -> Case:
    floats = {name: value.cuda() for name, value in case.floats.items()}
    return replace(case, floats=floats, target=case.target.cuda())


def check(case: Case) -> None:
    upstream = upstream_for(case)
    expected, expected_grads = oracle(case, upstream)
    name = "logprob_stats" if "logits" in case.floats else "linear_logprob_stats"
    there = {key: value.cuda() for key, value in upstream.items()}
    got, grads = gradients(on_gpu(case), getattr(suder_ext, name), there)
    for key in OUTPUTS:
        assert_close(got[key], expected[key].cuda(), key, case.dtype)
    for key, grad in grads.items():
        assert_close(grad, expected_grads[key].cuda(), kind_of(key, case.dtype), case.dtype)


def kind_of(name: str, dtype: torch.dtype) -> str:
    """That of the gradient of a bias where probabilities may have been kept."""
    return "grad_bias/kept" if name == "bias" and dtype != torch.float32 else f"grad_{name}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_logprob(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    check(linear_case(*shape, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_linear_kl(dtype: torch.dtype) -> None:
    case = kl_cases.kl_case(600, 64, 40, 20000, dtype)
    upstream = kl_cases.upstream_for(case)
    expected, expected_grads = kl_cases.oracle(case, upstream)
    sizes = kl_cases.terms(case, upstream, rounded=dtype != torch.float32)
    there = on_gpu(case)
    with no_synchronisation():
        there.run(suder_ext.linear_kl)
    got, grads = kl_cases.run(there, {"logprob": upstream["logprob"].cuda()})
    assert_close(got, expected.cuda(), "kl", dtype)
    for name, grad in grads.items():
        kind = f"grad_{name.removeprefix('ref_')}"
        assert_close(grad, expected_grads[name].cuda(), kind, dtype, terms=sizes[name])


@pytest.mark.parametrize("kept", [0, 2**20, 2**29])
def test_chunks_and_slices_of_the_backward(kept: int) -> None:
    with (
        mock.patch.multiple(logit_gradients, CHUNK_TOKENS=272, SLICE_COLUMNS=512),
        mock.patch.object(_workspace, "kept_bytes", kept),
    ):
        check(linear_case(600, 72, 1100, torch.bfloat16))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab", [7, 1025, 50257, 151936])
def test_logprob(vocab: int, dtype: torch.dtype) -> None:
    check(logits_case(33, vocab, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_in_any_batch_and_position(dtype: torch.dtype) -> None:
    case = on_gpu(linear_case(1500, 256, 20000, dtype, ignored=0.0))
    whole = case.run(suder_ext.linear_logprob_stats)
    for rows in (slice(0, 1), slice(5, 700), slice(1499, 1500)):
        hidden = case.floats["hidden"][rows]
        part = replace(case, floats={**case.floats, "hidden": hidden}, target=case.target[rows])
        for name, value in part.run(suder_ext.linear_logprob_stats)._asdict().items():
            assert torch.equal(value, getattr(whole, name)[rows]), (name, rows)


def test_nothing_waits_for_the_device_and_graphs_capture_it() -> None:
    case = on_gpu(linear_case(300, 64, 3000, torch.bfloat16))
    expected = case.run(suder_ext.linear_logprob)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        case.run(suder_ext.linear_logprob)
    torch.cuda.current_stream().wait_stream(stream)
    with no_synchronisation():
        case.run(suder_ext.linear_logprob)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = case.run(suder_ext.linear_logprob)
    captured.zero_()
    graph.replay()
    assert torch.equal(captured, expected)


@pytest.mark.parametrize("rules", [{}, {"temperature": 0.6}, {"top_k": 40, "top_p": 0.8}], ids=str)
@pytest.mark.parametrize("vocab", [7, 5003, 16384, 129920])
def test_tokens_are_those_of_the_cpu(vocab: int, rules: dict[str, Any]) -> None:
    """But where rounding decides; with the same bits in any batch, and nothing waits."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(140, 64, generator=generator)
    weight, bias = (torch.randn(*size, generator=generator) for size in ((vocab, 64), (vocab,)))
    uniform = torch.rand(140, generator=generator, dtype=torch.float64)
    head = hidden, weight * 0.4, uniform, bias
    expected = suder_ext.linear_sample_token(*head, **rules)
    there = [tensor.cuda() for tensor in head]
    with no_synchronisation():
        got = suder_ext.linear_sample_token(*there, **rules)
    same = got.token.cpu() == expected.token
    assert same.double().mean() > 0.95
    for kind, a, b in zip(("logprob", "entropy"), got[1:], expected[1:], strict=True):
        assert_close(a.cpu()[same], b[same], kind, torch.float32)
    alone = suder_ext.linear_sample_token(
        there[0][131:], there[1], there[2][131:], there[3], **rules
    )
    assert all(torch.equal(a, b[131:]) for a, b in zip(alone, got, strict=True))


@pytest.mark.parametrize("offsets_on", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_mean_of_pairs(dtype: torch.dtype, offsets_on: str) -> None:
    case = pair_case(6, dtype, longest=400, features=64, vocab=20000)
    expected = outcome(case.double(), suder_ext.reference.linear_preference_loss)
    terms, of_loss = terms_of(case)
    there = {
        "ref_logprob": case.options["ref_logprob"].cuda(),
        "cu_seqlens": case.options["cu_seqlens"].to(offsets_on),
    }
    moved = replace(on_gpu(case), options={**case.options, **there})
    outcome(moved, suder_ext.linear_preference_loss)
    with no_synchronisation():
        got = outcome(moved, suder_ext.linear_preference_loss)
    assert_close(got.loss, expected.loss.cuda(), "logprob", dtype, terms=of_loss)
    for name, grad in got.grads.items():
        kind = kind_of(name, dtype)
        assert_close(grad, expected.grads[name].cuda(), kind, dtype, 1.0, terms[name])


def test_a_target_outside_the_vocabulary_makes_its_row_nan() -> None:
    case = on_gpu(linear_case(6, 16, 40, torch.bfloat16, ignored=0.0))
    case.target[2] = 40
    assert case.run(suder_ext.linear_logprob).isnan().tolist() == [i == 2 for i in range(6)]
