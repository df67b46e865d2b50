"""The operators inside torch: opcheck, compile, gradcheck, autocast, fake tensors, graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import suder_ext
from tests.ops.calls import CU, FUNCTIONS, TARGET, calls, flat, inputs, weighted_sum
from tests.ops.cases import linear_case, logits_case
from tests.ops.compare import assert_close
from tests.ops.pairs import workspace


@pytest.fixture(autouse=True)
def _in_chunks() -> Iterator[None]:
    """linear_preference_loss goes through pairs in chunks where it may, however few they are."""
    with workspace(0):
        yield


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradcheck_of_the_float64_path(name: str) -> None:
    tensors = inputs(torch.float64)
    leaves = list(tensors.values())

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        results = flat(calls(dict(zip(tensors, values, strict=True)))[name]())
        return tuple(part.nan_to_num() for part in results)

    assert torch.autograd.gradcheck(function, leaves, fast_mode=False)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiles_whole(fastest: str, name: str) -> None:
    eager_in, compiled_in = inputs(), inputs()
    eager = calls(eager_in)[name]()
    torch._dynamo.reset()

    # aot_eager traces and partitions as inductor does, and needs no C++ compiler.
    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(t: dict[str, Tensor], cu: Tensor, target: Tensor) -> Any:
        return calls(t, cu, target)[name]()

    compiled = step(compiled_in, CU, TARGET)
    weighted_sum(eager).backward()
    weighted_sum(compiled).backward()
    for got, expected in zip(flat(compiled), flat(eager), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7, equal_nan=True)
    for argument, leaf in eager_in.items():
        torch.testing.assert_close(compiled_in[argument].grad, leaf.grad, rtol=1e-6, atol=1e-7)


def test_compiles_with_dynamic_shapes(fastest: str) -> None:
    torch._dynamo.reset()
    frames = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        frames.append(graph)
        return graph.forward

    @torch.compile(fullgraph=True, backend=count, dynamic=True)
    def step(hidden: Tensor, weight: Tensor, target: Tensor, cu: Tensor) -> Tensor:
        return suder_ext.linear_sequence_logprob(hidden, weight, target, cu)

    for tokens in (6, 9, 14):
        case = linear_case(tokens, 5, 7, bias=False, ignored=0.0)
        cu = torch.tensor([0, tokens // 2, tokens])
        args = case.floats["hidden"], case.floats["weight"], case.target, cu
        assert torch.equal(step(*args), suder_ext.linear_sequence_logprob(*args))
    assert len(frames) == 1


@pytest.mark.parametrize("floats", [0, 10**9], ids=["chunks", "whole"])
def test_mean_of_pairs_compiles_with_dynamic_shapes(fastest: str, floats: int) -> None:
    torch._dynamo.reset()
    frames = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        frames.append(graph)
        return graph.forward

    @torch.compile(fullgraph=True, backend=count, dynamic=True)
    def step(hidden: Tensor, weight: Tensor, target: Tensor, cu: Tensor) -> Tensor:
        return suder_ext.linear_preference_loss(hidden, weight, target, cu, reduction="mean").loss

    with workspace(floats):
        for tokens in (6, 9, 14):
            case = linear_case(tokens, 5, 7, bias=False, ignored=0.0)
            hidden, weight = (t.requires_grad_() for t in case.floats.values())
            args = hidden, weight, case.target, torch.tensor([0, 2, tokens])
            compiled, eager = step(*args), suder_ext.linear_preference_loss(*args, reduction="mean")
            assert torch.equal(compiled, eager.loss)
            for got, expected in zip(
                torch.autograd.grad(compiled, (hidden, weight)),
                torch.autograd.grad(eager.loss, (hidden, weight)),
                strict=True,
            ):
                assert torch.equal(got, expected)
    assert len(frames) == 1


def _operator_calls() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each operator with arguments that reach every branch of its schema."""
    t = inputs()
    plain = inputs(grad=False)
    n, pairs = torch.randn(8), torch.randn(4)
    lengths = torch.tensor([1, 2, 3, 4])
    none: tuple[None, ...] = (None, None)
    head = plain["hidden"], plain["weight"]
    saved = n.abs() + 3, n.abs()
    yield (
        "linear_logprob",
        (t["hidden"], t["weight"], t["bias"], TARGET, -100, 1.0, None, True, 0, False),
    )
    yield "linear_logprob", (t["hidden"], t["weight"], None, TARGET, -100, 0.5, 3.0, False, 0, True)
    yield (
        "linear_logprob_backward",
        (n, n, n, *head, plain["bias"], TARGET, *saved, n[:0], -100, 1.0, None, True, True, True),
    )
    yield (
        "linear_logprob_backward",
        (n, *none, *head, None, TARGET, saved[0], n[:0], n[:0], -100, 1.0, 2.0, True, False, False),
    )
    names = "hidden", "weight", "bias", "ref_hidden", "ref_weight", "ref_bias"
    yield "linear_kl", (*(t[name] for name in names), TARGET, -100, 0.5, None, 0)
    yield (
        "linear_kl",
        (*head, None, t["ref_hidden"], plain["ref_weight"], None, TARGET, 2, 1.0, 3.0, 0),
    )
    for needs in ([True] * 6, [True, False, False, False, True, False]):
        heads = (plain[name] for name in names)
        saved_kl = n, *heads, TARGET, n.abs(), torch.ones(8, 4), n[:0]
        yield "linear_kl_backward", (*saved_kl, -100, 1.0, 2.0, needs)
    yield "logprob", (t["logits"], TARGET, -100, 1.0, None, True)
    yield "logprob", (t["logits"], TARGET, -100, 0.5, 3.0, False)
    yield (
        "logprob_backward",
        (n, n, n, plain["logits"], TARGET, n.abs() + 3, n.abs(), -100, 1.0, None),
    )
    full = torch.tensor([0, 2, 4, 6, 8])  # opcheck takes no NaN
    yield "sequence_reduce", (t["token"], TARGET, full, True, -100)
    yield "sequence_reduce_backward", (pairs, TARGET, full, lengths, False, -100)
    yield "group_advantage", (plain["chosen"], 2, "std")
    for loss_type in ("sigmoid", "simpo", "aot_unpaired"):
        chosen, rejected = t["chosen"], t["rejected"]
        options = loss_type, "reverse_kl", 0.1, 0.0, 0.0, 0.5, 0.05, 1.0
        refs = none if loss_type == "simpo" else (t["advantage"], plain["chosen"])
        yield "preference_loss", (chosen, rejected, *refs, lengths, lengths, *options)
    yield (
        "preference_loss_backward",
        (pairs, None, *(pairs,) * 5, lengths[:0], *none, "sigmoid", 0.1, True),
    )
    for bias, need, ref in ((t["bias"], True, pairs), (None, False, None)):
        weight = t["weight"] if need else plain["weight"]
        settings = "sigmoid", "reverse_kl", 0.1, 0.0, 0.0, 0.5, 0.05, 1.0, -100, 1.0, None
        arguments = t["hidden"], weight, bias, TARGET, full, torch.full((4,), 2), ref
        yield "linear_preference_loss", (*arguments, *settings, True, need, need)
    slopes = torch.randn(8, 5), torch.randn(7, 5), n[:0]
    yield "linear_preference_loss_backward", (n[0], *head, None, *slopes)
    yield "policy_loss_backward", (n[0], n, n, n, n[:0], n[:0], pairs, n[:0])
    yield "policy_loss_backward", (n[0], n, n, n, n, n, pairs, n)
    for surrogate, ref, weight in (
        *(("clip", None, None), ("sapo", t["ref"], plain["ref"])),
        ("vespo", t["ref"], None),
    ):
        arguments = t["token"], t["old"], ref, t["advantage"], weight, None, CU
        options = surrogate, 0.2, 0.3, 2.0, 0.1, "k3", ref is not None, "token", "token", 0, 0.0
        yield "policy_loss", (*arguments, *options, [1.0, 2.0] * 3, weight is not None)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [pytest.param(*call, id=f"{call[0]} {i}") for i, call in enumerate(_operator_calls())],
)
def test_opcheck(fastest: str, name: str, arguments: tuple[Any, ...]) -> None:
    torch.library.opcheck(getattr(torch.ops.suder, name).default, arguments)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_backward_twice_with_retain_graph(backend: str, name: str) -> None:
    tensors = inputs()
    loss = weighted_sum(calls(tensors)[name]())
    loss.backward(retain_graph=True)
    first = {n: None if t.grad is None else t.grad.clone() for n, t in tensors.items()}
    loss.backward()
    for argument, tensor in tensors.items():
        grad = first[argument]
        if grad is None:
            assert tensor.grad is None
        else:
            assert torch.equal(tensor.grad, 2 * grad)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_recorded_without_need(backend: str, name: str) -> None:
    for part in flat(calls(inputs(grad=False))[name]()):
        assert not part.requires_grad
    with torch.no_grad():
        for part in flat(calls(inputs())[name]()):
            assert not part.requires_grad


@pytest.mark.parametrize("name", FUNCTIONS)
def test_fake_tensors_have_the_real_shapes(fastest: str, name: str) -> None:
    real = flat(calls(inputs())[name]())
    with FakeTensorMode() as mode:
        tensors = {n: mode.from_tensor(t) for n, t in inputs().items()}
        fake = flat(calls(tensors, mode.from_tensor(CU), mode.from_tensor(TARGET))[name]())
    for one, other in zip(fake, real, strict=True):
        assert (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)


def test_meta_tensors() -> None:
    hidden = torch.empty(3, 4, 5, device="meta", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.empty(7, 5, device="meta", dtype=torch.bfloat16)
    target = torch.empty(3, 4, device="meta", dtype=torch.int64)
    result = suder_ext.linear_logprob(hidden, weight, target)
    assert (result.shape, result.dtype) == ((3, 4), torch.float32)
    result.sum().backward()
    assert hidden.grad is not None
    assert (hidden.grad.shape, hidden.grad.dtype) == (hidden.shape, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_casts_the_head_and_leaves_logits(backend: str, dtype: torch.dtype) -> None:
    case = linear_case(9, 16, 20)
    cast = {name: t.to(dtype) for name, t in case.floats.items()}
    expected = suder_ext.linear_logprob(**cast, target=case.target)
    mixed = {**case.floats, "hidden": cast["hidden"]}
    logits = logits_case(9, 20)
    from_logits = logits.run(suder_ext.logprob)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(suder_ext.linear_logprob(**case.floats, target=case.target), expected)
        assert torch.equal(suder_ext.linear_logprob(**mixed, target=case.target), expected)
        assert torch.equal(logits.run(suder_ext.logprob), from_logits)


def test_gradients_of_leaves_under_autocast(backend: str) -> None:
    case = linear_case(9, 16, 20, ignored=0.0)
    leaves = {name: t.clone().requires_grad_() for name, t in case.floats.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        suder_ext.linear_logprob(**leaves, target=case.target).sum().backward()
    rounded = {name: t.bfloat16().double().requires_grad_() for name, t in case.floats.items()}
    suder_ext.linear_logprob(**rounded, target=case.target).sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert leaf.grad.dtype == torch.float32
        expected = rounded[name].grad
        assert expected is not None
        assert_close(leaf.grad, expected, "grad_hidden/bfloat16", torch.bfloat16)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_default_dtype_changes_nothing(backend: str, name: str) -> None:
    expected = flat(calls(inputs())[name]())
    tensors = inputs()
    torch.set_default_dtype(torch.float64)
    try:
        got = flat(calls(tensors)[name]())
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_default_device_changes_nothing(fastest: str) -> None:
    tensors = inputs()
    call = calls(tensors)["linear_preference_loss"]
    expected = call()
    with torch.device("meta"):
        got = call()
    for one, other in zip(got, expected, strict=True):
        assert one.device.type == "cpu"
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
