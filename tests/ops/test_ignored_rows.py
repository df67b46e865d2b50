"""No value of an ignored row or token reaches a result or a gradient: every function and option."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

import suder_ext
from tests.ops.calls import FUNCTIONS, flat
from tests.ops.cases import DTYPES
from tests.ops.pairs import workspace
from tests.ops.test_transforms import TRANSFORMS, arguments_of, function

TOKENS, FEATURES, VOCAB = 20, 16, 33
IGNORED = torch.tensor([1, 4, 9, 19])
GARBAGE = torch.tensor([math.nan, math.inf, -math.inf, 3e38])[:, None]
CU = torch.tensor([0, 3, 5, 12, 20])
SOFTMAX: list[dict[str, Any]] = [{}, {"softcap": 5.0}, {"softcap": 5.0, "temperature": 0.5}]


def inputs(dtype: torch.dtype, garbage: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "hidden": (TOKENS, FEATURES),
        "weight": (VOCAB, FEATURES),
        "bias": (VOCAB,),
        "logits": (TOKENS, VOCAB),
        "token": (TOKENS, 1),
        "ref_hidden": (TOKENS, FEATURES),
        "ref_weight": (VOCAB, FEATURES),
    }
    values = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name in ("hidden", "logits", "token", "ref_hidden"):
        if garbage:
            values[name][IGNORED] = GARBAGE
    return {name: t.to(dtype).requires_grad_() for name, t in values.items()}


def target_with(ignored: int) -> Tensor:
    target = torch.arange(TOKENS) * 7 % VOCAB
    target[IGNORED] = ignored
    return target


TARGET = target_with(-100)
SCORED = target_with(0)
MASK = torch.ones(TOKENS, dtype=torch.bool).index_fill(0, IGNORED, False)
GARBAGE_INDEX = target_with(10**9)
Call = Callable[[dict[str, Tensor]], Any]


def _calls() -> dict[str, Call]:
    calls: dict[str, Call] = {}

    def head(name: str, *others: Any, **options: Any) -> Call:
        def call(t: dict[str, Tensor]) -> Any:
            given = t["hidden"], t["weight"], TARGET, *others
            return getattr(suder_ext, name)(*given, bias=t["bias"], **options)

        return call

    def kl(cu: Tensor | None, **options: Any) -> Call:
        heads = "hidden", "weight", "ref_hidden", "ref_weight", "bias"
        return lambda t: suder_ext.linear_kl(
            *(t[name] for name in heads), target=TARGET, cu_seqlens=cu, **options
        )

    def logits(name: str, **options: Any) -> Call:
        return lambda t: getattr(suder_ext, name)(t["logits"], TARGET, **options)

    def smoothed(**options: Any) -> Call:
        return lambda t: suder_ext.linear_cross_entropy(
            t["hidden"], t["weight"], TARGET, linear_bias=t["bias"], **options
        )

    for options in SOFTMAX:
        for name in ("linear_logprob", "linear_logprob_stats"):
            calls[f"{name} {options}"] = head(name, **options)
            calls[name.removeprefix("linear_") + f" {options}"] = logits(
                name.removeprefix("linear_"), **options
            )
        calls[f"linear_kl {options}"] = kl(None, **options)
        calls[f"linear_kl sequences {options}"] = kl(CU, **options)
        for reduction in ("mean", "sum"):
            calls[f"linear_sequence_logprob {reduction} {options}"] = head(
                "linear_sequence_logprob", CU, reduction=reduction, **options
            )
        for reduction in ("none", "mean"):
            calls[f"linear_preference_loss {reduction} {options}"] = head(
                "linear_preference_loss", CU, reduction=reduction, **options
            )
        calls[f"dual_reward {options}"] = head("dual_reward", CU, group_size=2, **options)
    for smoothing in (0.0, 0.1, 1.0):
        for reduction in ("none", "mean", "sum"):
            calls[f"linear_cross_entropy {smoothing} {reduction}"] = smoothed(
                label_smoothing=smoothing, reduction=reduction
            )
    for index in (SCORED, GARBAGE_INDEX):
        several = torch.stack([index, SCORED.flip(0)], dim=1)
        name = f"selective_log_softmax {int(index[1])}"
        calls[name] = lambda t, index=index: suder_ext.selective_log_softmax(  # type: ignore[misc]
            t["logits"], index, row_mask=MASK
        )
        calls[name + " K"] = lambda t, index=several: suder_ext.selective_log_softmax(  # type: ignore[misc]
            t["logits"], index, row_mask=MASK[:, None].expand(-1, 2)
        )
    calls["sequence_reduce"] = lambda t: suder_ext.sequence_reduce(
        t["token"][:, 0], TARGET, CU, mean=True
    )
    return calls


CALLS = _calls()


def run(call: Call, values: dict[str, Tensor], garbage: bool) -> tuple[list[Tensor], list[Any]]:
    """Results, and gradients of a sum of them that weighs ignored rows with garbage, too."""
    results = flat(call(values))
    recorded = [result for result in results if result.requires_grad]
    upstream = [torch.linspace(-1, 1, r.numel()).view(r.shape) for r in recorded]
    for grad in upstream:
        if garbage and grad.shape[:1] == (TOKENS,):
            grad[IGNORED] = GARBAGE if grad.dim() == 2 else GARBAGE[:, 0]
    if not recorded:
        return results, []
    grads = torch.autograd.grad(recorded, list(values.values()), upstream, allow_unused=True)
    return [result.detach() for result in results], list(grads)


def assert_same(got: list[Any], clean: list[Any], what: str) -> None:
    for one, other in zip(got, clean, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(
                one, other, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{what}: {text}"
            )


def check(dtype: torch.dtype, *, chunks: bool) -> None:
    for name, call in CALLS.items():
        if chunks and "linear_preference_loss mean" not in name:
            continue
        with workspace(0) if chunks else nullcontext():
            got, grads = run(call, inputs(dtype, garbage=True), garbage=True)
            clean, clean_grads = run(call, inputs(dtype, garbage=False), garbage=False)
        assert_same(got, clean, name)
        assert_same(grads, clean_grads, f"gradients of {name}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("chunks", [False, True], ids=["whole", "in chunks"])
def test_garbage_in_ignored_rows(backend: str, chunks: bool, dtype: torch.dtype) -> None:
    check(dtype, chunks=chunks)


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=str)
def test_garbage_in_ignored_rows_under_autocast(backend: str, autocast: torch.dtype) -> None:
    with torch.autocast("cpu", dtype=autocast):
        check(torch.float32, chunks=False)


MASKING = [
    name
    for name in FUNCTIONS
    if name.startswith(("lin", "log", "seq")) or name == "selective_log_softmax masked"
]


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("name", MASKING)
@pytest.mark.parametrize("transform", ["jvp", "grad", "vmap(grad)", "double backward", "hessian"])
def test_garbage_in_ignored_rows_under_transforms(fastest: str, name: str, transform: str) -> None:
    call, leaves = function(name, torch.float32)
    clean = TRANSFORMS[transform][0](call, leaves)
    for argument, leaf in zip(arguments_of(name), leaves, strict=True):
        if argument in ("hidden", "ref_hidden", "logits", "token"):
            leaf[2], leaf[7] = math.nan, math.inf  # ignored in tests/ops/calls.py
    torch.testing.assert_close(TRANSFORMS[transform][0](call, leaves), clean, rtol=0, atol=0)
