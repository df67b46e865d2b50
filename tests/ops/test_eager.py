"""Eager calls go straight to the CPU kernels; whoever must see an operator still sees it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import suder_ext
from suder_ext._ops import eager
from tests.ops.emulated import short_way, use_emulated

CU = torch.tensor([0, 3, 5, 8, 12])
TARGET = torch.arange(12) % 5
NAMES = ("a", "b", "c", "d", "token", "old", "logits", "hidden", "weight", "bias", "ref", "head")
SHAPES = ((4,),) * 4 + ((12,), (12,), (12, 5), (12, 3), (5, 3), (5,), (12, 2), (5, 2))


def _tensors(grad: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator).requires_grad_(grad)
        for name, shape in zip(NAMES, SHAPES, strict=True)
    }


def _pair(t: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return t["a"], t["b"], t["c"], t["d"]


# Public call, and the same by torch.ops.suder: operator -> (function, registered arguments).
CASES: dict[str, tuple[Callable[..., Any], Callable[..., tuple[Any, ...]]]] = {
    "preference_loss": (
        lambda t: suder_ext.preference_loss(*_pair(t)),
        lambda t: (*_pair(t), None, None, "sigmoid", "reverse_kl", 0.1, 0.0, 0.0, 0.5, 0.05, 1.0),
    ),
    "policy_loss": (
        lambda t: (
            suder_ext.policy_loss(t["token"], t["old"], t["a"], CU, t["token"] * 0.5, kl_coef=0.1),
        ),
        lambda t: (
            *(t["token"], t["old"], t["token"] * 0.5, t["a"], None, None, CU),
            *("clip", 0.2, 0.2, math.inf, 0.1, "k3", False, "sequence", "token", 0, 0.0),
            *([1.0] * 6, False),
        ),
    ),
    "sequence_reduce": (
        lambda t: suder_ext.sequence_reduce(t["token"], TARGET, CU, mean=True),
        lambda t: (t["token"], TARGET, CU, True, -100),
    ),
    "group_advantage": (
        lambda t: suder_ext.group_advantage(t["a"], 2),
        lambda t: (t["a"].detach(), 2, "std"),
    ),
    "logprob": (
        lambda t: suder_ext.logprob_stats(t["logits"], TARGET, temperature=0.5),
        lambda t: (t["logits"], TARGET, -100, 0.5, None, True),
    ),
    "linear_logprob": (
        lambda t: suder_ext.linear_logprob_stats(t["hidden"], t["weight"], TARGET, t["bias"]),
        lambda t: (t["hidden"], t["weight"], t["bias"], TARGET, -100, 1.0, None, True, 0, False),
    ),
    "linear_kl": (
        lambda t: (
            suder_ext.linear_kl(
                t["hidden"], t["weight"], t["ref"], t["head"], t["bias"], None, TARGET
            ),
        ),
        lambda t: (
            *(t["hidden"], t["weight"], t["bias"], t["ref"], t["head"], None, TARGET),
            *(-100, 1.0, None, 0),
        ),
    ),
}


@contextmanager
def short_ways() -> Iterator[list[str]]:
    """Names the operators that went past the dispatcher."""
    taken: list[str] = []

    def watch(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(op: str, *arguments: Any) -> Any:
            taken.append(op)
            return function(op, *arguments)

        return call

    with mock.patch.object(eager, "call", watch(eager.call)):
        yield taken


@pytest.mark.parametrize("grad", [False, True], ids=["values", "gradients"])
@pytest.mark.parametrize("op", CASES)
def test_the_short_way_gives_the_same_bits(isa: str, op: str, grad: bool) -> None:
    public, arguments = CASES[op]
    short_in, long_in = _tensors(grad), _tensors(grad)
    with short_ways() as taken, short_way() if isa.startswith("emulated") else nullcontext():
        short = public(short_in)
    assert taken == [op]
    long = getattr(torch.ops.suder, op)(*arguments(long_in))
    for one, other in zip(short, long, strict=False):  # slopes come after the public results
        assert torch.equal(one, other)
        assert one.requires_grad == other.requires_grad
    differentiable = [i for i, value in enumerate(short) if value.requires_grad]
    if not differentiable:
        return
    for results in (short, long):
        sum((results[i] ** 2).sum() for i in differentiable).backward()
    for name, leaf in short_in.items():
        expected = long_in[name].grad
        assert (leaf.grad is None) == (expected is None), name
        assert leaf.grad is None or torch.equal(leaf.grad, expected), name


@pytest.mark.parametrize("op", CASES)
def test_the_backward_goes_the_short_way_too(fastest: str, op: str) -> None:
    results = [r for r in CASES[op][0](_tensors(grad=True)) if r.requires_grad]
    if not results:
        return
    with mock.patch.object(eager, "kernels", {**eager.kernels}):
        name = f"{op}_backward"
        eager.kernels[name] = mock.Mock(wraps=eager.kernels[name])
        sum(r.sum() for r in results).backward()
        assert eager.kernels[name].call_count == 1


@pytest.mark.parametrize("op", CASES)
def test_results_share_no_memory(fastest: str, op: str) -> None:
    for grad in (False, True):
        results = CASES[op][0](_tensors(grad))
        addresses = [r.untyped_storage().data_ptr() for r in results]
        assert len(set(addresses)) == len(addresses)
        assert all(r._base is None for r in results)


class SeesOperators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


class SeesFunctions(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
        return function(*args, **(kwargs or {}))


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "dispatch mode": SeesOperators,
    "function mode": SeesFunctions,
    "default device": lambda: torch.device("cpu"),
    "profiler": lambda: torch.autograd.profiler.profile(use_cpu=True),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", CASES)
def test_modes_see_the_operator(fastest: str, op: str, mode: str) -> None:
    tensors = _tensors()
    expected = CASES[op][0](tensors)
    with short_ways() as taken, MODES[mode]() as entered:
        got = CASES[op][0](tensors)
    assert taken == []
    if mode == "dispatch mode":
        assert f"suder.{op}.default" in entered.seen
    if mode == "profiler":
        assert f"suder::{op}" in {event.name for event in entered.function_events}
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("op", CASES)
def test_compilers_and_tracers_see_the_operator(fastest: str, op: str) -> None:
    tensors = _tensors()
    targets: list[str] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch._dynamo.reset()
    with short_ways() as taken:
        torch.compile(CASES[op][0], fullgraph=True, backend=keep)(tensors)
    assert (taken, f"suder.{op}.default" in targets) == ([], True)
    with short_ways() as taken:
        traced = torch.jit.trace(
            lambda a: CASES[op][0]({**tensors, "a": a}), tensors["a"], check_trace=False
        )
    assert (taken, f"suder::{op}" in str(traced.graph)) == ([], True)


def test_transforms_and_odd_tensors_go_the_long_way(fastest: str) -> None:
    a, b = torch.randn(4), torch.randn(4)

    class Subclass(Tensor):
        pass

    lazy_negative = torch.complex(b, -a).conj().imag
    odd = {
        "subclass": (a.as_subclass(Subclass), a),
        "lazy negative": (lazy_negative, lazy_negative.clone()),
        "lazy zero": (torch._efficientzerotensor(4), torch.zeros(4)),
        "bfloat16": (a.bfloat16(), a.bfloat16().float()),
    }
    assert torch.equal(lazy_negative, a)
    for name, (value, plain) in odd.items():
        with short_ways() as taken:
            got = suder_ext.preference_loss(value, b).loss
        assert taken == [], name
        assert torch.equal(got, suder_ext.preference_loss(plain, b).loss), name
    assert eager.ready("preference_loss", a, b)
    for value in (a.to_sparse(), torch.empty(4, device="meta"), [1.0]):
        assert not eager.ready("preference_loss", a, value)
    for other in (None, a.double(), a[:3], a[:, None]):
        assert eager.shape(1, eager.FLOAT32, a, other) is None
    with short_ways() as taken:  # torch warns on stderr
        torch.func.vmap(lambda reward: suder_ext.group_advantage(reward, 2))(torch.randn(3, 4))
    assert taken == []


def test_odd_upstream_gradients(fastest: str) -> None:
    """Expanded, lazily zero and lazily negative gradients reach the kernel as their values."""
    tensors = _tensors(grad=True)
    lazy = torch.complex(torch.ones(4), torch.tensor([1.0, -2.0, 0.0, 4.0])).conj().imag
    for upstream in (torch.ones(()).expand(4), torch._efficientzerotensor(4), lazy):
        loss = suder_ext.preference_loss(*_pair(tensors)).loss
        (got,) = torch.autograd.grad(loss, tensors["a"], upstream, retain_graph=True)
        (expected,) = torch.autograd.grad(loss, tensors["a"], upstream.clone().contiguous())
        assert torch.equal(got, expected)


@pytest.mark.parametrize("op", CASES)
def test_emulated_kernels_never_give_way_to_the_cpus(op: str) -> None:
    """Kernels of another device in the CPU's place, here ones that fail, are the ones that run."""

    def fail(*_: Any, **__: Any) -> None:
        raise NotImplementedError("the other device")

    class Kernels(SimpleNamespace):
        def __getattr__(self, name: str) -> Callable[..., None]:
            return fail

    with use_emulated("emulated-tiles", Kernels()):  # type: ignore[arg-type]
        for grad in (False, True):
            with pytest.raises(NotImplementedError, match="the other device"):
                CASES[op][0](_tensors(grad))
