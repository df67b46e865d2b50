"""Every differentiable function under every transform of torch, against float64 autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import suder_ext
from suder_ext import reference
from suder_ext._ops import eager
from tests.ops.calls import FUNCTIONS, calls, flat, inputs
from tests.ops.compare import assert_close
from tests.ops.pairs import workspace
from tests.tolerances import TOLERANCES

# torch itself says so, of the rules that forward-mode AD takes from its decompositions.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

Vector = Callable[..., Tensor]
Results = tuple[Tensor, ...]


def function(name: str, dtype: torch.dtype, library: Any = suder_ext) -> tuple[Vector, Results]:
    """All results of a call as one vector, as a function of the arguments that they depend on."""
    values = inputs(dtype, grad=False)
    names = arguments_of(name)

    def run(*leaves: Tensor) -> Tensor:
        results = calls({**values, **dict(zip(names, leaves, strict=True))}, library=library)[
            name
        ]()
        return torch.cat([result.nan_to_num().reshape(-1) for result in flat(results)])

    return run, tuple(values[name] for name in names)


@cache
def arguments_of(name: str) -> tuple[str, ...]:
    leaves = inputs(torch.float64)
    total = torch.stack([r.nansum() for r in flat(calls(leaves, library=reference)[name]())]).sum()
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return tuple(n for n, grad in zip(leaves, grads, strict=True) if grad is not None)


def like(tensors: Results, seed: int) -> Results:
    """Numbers of both signs, also in code that is compiled."""
    return tuple(
        torch.arange(1, t.numel() + 1, dtype=t.dtype).mul(seed + 0.7).sin().view(t.shape)
        for t in tensors
    )


def scalar(run: Vector) -> Vector:
    """Of each result, something that is neither linear nor the same for all."""

    def total(*leaves: Tensor) -> Tensor:
        result = run(*leaves)
        weight = torch.arange(1, result.numel() + 1, dtype=result.dtype)
        return (weight * result + result**2).sum()

    return total


def flattened(tensors: Any) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def recorded(leaves: Results) -> Results:
    return tuple(t.clone().requires_grad_() for t in leaves)


def dual(leaves: Results, tangents: Results) -> Results:
    return tuple(forward_ad.make_dual(t, v) for t, v in zip(leaves, tangents, strict=True))


def dual_tensors(run: Vector, leaves: Results) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(run(*dual(leaves, like(leaves, 1)))).tangent


def jvp(run: Vector, leaves: Results) -> Tensor:
    return torch.func.jvp(run, leaves, like(leaves, 1))[1]


def jacobian(transform: Any) -> Callable[[Vector, Results], Tensor]:
    def run_transform(run: Vector, leaves: Results) -> Tensor:
        return flattened(transform(run, argnums=tuple(range(len(leaves))))(*leaves))

    return run_transform


def batched_upstream(run: Vector, leaves: Results) -> Tensor:
    leaves = recorded(leaves)
    result = run(*leaves)
    upstream = torch.eye(result.numel(), dtype=result.dtype)
    return flattened(torch.autograd.grad(result, leaves, upstream, is_grads_batched=True))


def dual_upstream(run: Vector, leaves: Results) -> Tensor:
    leaves = recorded(leaves)
    result = run(*leaves)
    with forward_ad.dual_level():
        upstream = dual((torch.ones_like(result),), like((result,), 1))
        grads = torch.autograd.grad(result, leaves, upstream)
        return flattened(forward_ad.unpack_dual(grad).tangent for grad in grads)


def backward(run: Vector, leaves: Results) -> Tensor:
    leaves = recorded(leaves)
    scalar(run)(*leaves).backward()
    return flattened(leaf.grad for leaf in leaves)


def with_checkpoint(reentrant: bool) -> Callable[[Vector, Results], Tensor]:
    def run_checkpoint(run: Vector, leaves: Results) -> Tensor:
        again = lambda *values: checkpoint(run, *values, use_reentrant=reentrant)  # noqa: E731
        return backward(again, leaves)

    return run_checkpoint


def func_grad(run: Vector, leaves: Results) -> Tensor:
    return flattened(torch.func.grad(scalar(run), argnums=tuple(range(len(leaves))))(*leaves))


def two(leaves: Results) -> list[Results]:
    return [leaves, tuple(t + 0.5 * v for t, v in zip(leaves, like(leaves, 2), strict=True))]


def vmap(run: Vector, leaves: Results) -> Tensor:
    batch = (torch.stack(parts) for parts in zip(*two(leaves), strict=True))
    return torch.func.vmap(run)(*batch).reshape(-1)


def vmap_grad(run: Vector, leaves: Results) -> Tensor:
    batch = (torch.stack(parts) for parts in zip(*two(leaves), strict=True))
    grad = torch.func.grad(scalar(run), argnums=tuple(range(len(leaves))))
    grads = torch.func.vmap(grad)(*batch)
    return torch.cat([flattened(grad[i] for grad in grads) for i in range(2)])


def each(one: Callable[[Vector, Results], Tensor]) -> Callable[[Vector, Results], Tensor]:
    return lambda run, leaves: torch.cat([one(run, part).reshape(-1) for part in two(leaves)])


def func_hessian(run: Vector, leaves: Results) -> Tensor:
    blocks = torch.func.hessian(scalar(run), argnums=tuple(range(len(leaves))))(*leaves)
    return flattened(block for row in blocks for block in row)


def hessian(run: Vector, leaves: Results) -> Tensor:
    blocks = torch.autograd.functional.hessian(scalar(run), leaves)
    return flattened(block for row in blocks for block in row)


def double_backward(run: Vector, leaves: Results) -> Tensor:
    """The gradient of a gradient's projection."""
    leaves = recorded(leaves)
    grads = torch.autograd.grad(scalar(run)(*leaves), leaves, create_graph=True)
    projection = sum((g * v).sum() for g, v in zip(grads, like(leaves, 1), strict=True))
    second = torch.autograd.grad(projection, leaves, allow_unused=True)
    return flattened(
        torch.zeros_like(t) if g is None else g for t, g in zip(leaves, second, strict=True)
    )


def compiled(one: Callable[[Vector, Results], Tensor]) -> Callable[[Vector, Results], Tensor]:
    def run_compiled(run: Vector, leaves: Results) -> Tensor:
        torch._dynamo.reset()
        step = torch.compile(one, fullgraph=True, backend="aot_eager")
        return step(run, leaves)

    return run_compiled


def autograd_jacobian(run: Vector, leaves: Results) -> Tensor:
    return flattened(torch.autograd.functional.jacobian(run, leaves))


def jacobian_times(
    combine: Callable[[Tensor, Results], Tensor],
) -> Callable[[Vector, Results], Tensor]:
    def run_jacobian(run: Vector, leaves: Results) -> Tensor:
        parts = torch.autograd.functional.jacobian(run, leaves)
        rows = torch.cat([part.reshape(part.shape[0], -1) for part in parts], dim=1)
        return combine(rows, leaves)

    return run_jacobian


tangent_of = jacobian_times(lambda rows, leaves: rows @ flattened(like(leaves, 1)))
upstream_tangent_of = jacobian_times(lambda rows, _: like((rows[:, 0],), 1)[0] @ rows)

# Transform -> what it is in float64, by autograd and the reference.
TRANSFORMS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "jvp": (jvp, tangent_of),
    "dual tensors": (dual_tensors, tangent_of),
    "jacfwd": (jacobian(torch.func.jacfwd), autograd_jacobian),
    "jacrev": (jacobian(torch.func.jacrev), autograd_jacobian),
    "batched upstream": (batched_upstream, autograd_jacobian),
    "dual upstream": (dual_upstream, upstream_tangent_of),
    "grad": (func_grad, backward),
    "vmap": (vmap, each(lambda run, leaves: run(*leaves))),
    "vmap(grad)": (vmap_grad, each(backward)),
    "hessian": (func_hessian, hessian),
    "double backward": (double_backward, double_backward),
    "checkpoint": (with_checkpoint(reentrant=False), backward),
    "reentrant checkpoint": (with_checkpoint(reentrant=True), backward),
}
COMPILED: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "compile(grad)": (compiled(func_grad), backward),
    "compile(jvp)": (compiled(jvp), tangent_of),
    "compile(vmap)": (compiled(vmap), each(lambda run, leaves: run(*leaves))),
}


@cache
def expected(name: str, transform: str) -> Tensor:
    return (TRANSFORMS | COMPILED)[transform][1](*function(name, torch.float64, reference)).detach()


# Where the forward runs before the transform is at work, kernels do: called directly or through
# torch.ops, on pairs as a whole or in chunks.
BACKWARDS = (
    "batched upstream",
    "dual upstream",
    "double backward",
    "checkpoint",
    "reentrant checkpoint",
)
# To trace takes a second: one function of each kernel.
ONE_A_KERNEL = (
    "linear_logprob_stats",
    "linear_kl",
    "logprob",
    "sequence_reduce",
    "preference_loss",
    "policy_loss",
)
CASES = [
    *((name, transform, "direct") for name in FUNCTIONS for transform in TRANSFORMS),
    *((name, transform, "direct") for name in ONE_A_KERNEL for transform in COMPILED),
    *((name, transform, "dispatched") for name in FUNCTIONS for transform in BACKWARDS),
    *(("linear_preference_loss mean", transform, "in chunks") for transform in BACKWARDS),
]


@contextmanager
def way(name: str) -> Iterator[None]:
    with (
        mock.patch.dict(eager.kernels, clear=True) if name == "dispatched" else nullcontext(),
        workspace(0) if name == "in chunks" else nullcontext(),
    ):
        yield


@pytest.mark.parametrize(("name", "transform", "how"), CASES)
def test_every_function_under_every_transform(
    fastest: str, name: str, transform: str, how: str
) -> None:
    run, leaves = function(name, torch.float32)
    with way(how):
        if how == "in chunks" and transform == "double backward":
            with pytest.raises(RuntimeError, match="second derivatives of linear_preference_loss"):
                double_backward(run, leaves)
            return
        got = (TRANSFORMS | COMPILED)[transform][0](run, leaves).detach()
    limits = TOLERANCES["transform", "cpu", torch.float32]
    oracle = expected(name, transform)
    assert got.shape == oracle.shape
    assert oracle.any()
    scale = float(oracle.abs().max())
    torch.testing.assert_close(
        got.double(), oracle, rtol=limits["rtol"], atol=limits["atol"] * scale
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_autocast_rounds_the_operands_of_the_head_and_nothing_else(backend: str, name: str) -> None:
    run, leaves = function(name, torch.float32)
    exact, wide = function(name, torch.float64, reference)
    head = [
        argument.removeprefix("ref_") in ("hidden", "weight", "bias")
        for argument in arguments_of(name)
    ]
    rounded = tuple(
        t.bfloat16().double() if is_head else t for t, is_head in zip(wide, head, strict=True)
    )
    recorded_leaves, recorded_wide = recorded(leaves), recorded(rounded)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run(*recorded_leaves)
        got.sum().backward()
    oracle = exact(*recorded_wide)
    oracle.sum().backward()
    assert got.dtype == torch.float32
    assert_close(got.detach(), oracle.detach(), "logprob", torch.bfloat16)
    for leaf, wide_leaf, is_head in zip(recorded_leaves, recorded_wide, head, strict=True):
        assert leaf.grad is not None
        assert wide_leaf.grad is not None
        kind = "grad_hidden/parts" if is_head else "grad_logits"
        dtype = torch.bfloat16 if is_head else torch.float32
        assert_close(leaf.grad, wide_leaf.grad, kind, dtype)
