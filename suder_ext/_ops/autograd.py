"""Gradients of the operators. Every upstream gradient may be absent; none is assumed uniform.

The gradients themselves are not differentiable: asking for second derivatives is an error, never a
silent zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from suder_ext._ops import eager
from suder_ext._ops.schemas import library

Grad = Tensor | None


def _linear_logprob_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, weight, bias, target, *options, _, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[3])
    ctx.save_for_backward(hidden, weight, bias, target, *output[1:])
    ctx.options = options


def _linear_logprob(ctx: Any, *upstream: Grad) -> tuple[Any, ...]:
    need = ctx.needs_input_grad
    grads = eager.call_backward(
        "linear_logprob_backward", *upstream[:3], *ctx.saved_tensors, *ctx.options, *need[:3]
    )
    hidden, weight, bias = (
        grad if wanted else None for grad, wanted in zip(grads, need[:3], strict=True)
    )
    return hidden, weight, bias, *(None,) * 6


def _logprob_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    logits, target, *options, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, target, output[1], output[2])
    ctx.options = options


def _logprob(ctx: Any, logprob: Grad, lse: Grad, entropy: Grad) -> tuple[Any, ...]:
    grad = eager.call_backward(
        "logprob_backward", logprob, lse, entropy, *ctx.saved_tensors, *ctx.options
    )
    return grad, None, None, None, None, None


def _sequence_reduce_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, target, cu_seqlens, ctx.mean, ctx.ignore_index = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(target, cu_seqlens, output[1])


def _sequence_reduce(ctx: Any, value: Grad, count: Grad) -> tuple[Any, ...]:
    if value is None:
        return (None,) * 5
    grad = eager.call_backward(
        "sequence_reduce_backward", value, *ctx.saved_tensors, ctx.mean, ctx.ignore_index
    )
    return grad, None, None, None, None


def _preference_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[3:])
    ctx.save_for_backward(*inputs[:2], *output[3:], *inputs[4:6])
    ctx.loss_type, ctx.beta = inputs[6], inputs[8]


def _preference(ctx: Any, *upstream: Grad) -> tuple[Any, ...]:
    need = ctx.needs_input_grad
    grads = eager.call_backward(
        "preference_loss_backward",
        *upstream[:3],
        *ctx.saved_tensors,
        ctx.loss_type,
        ctx.beta,
        need[2] or need[3],
    )
    wanted = (grad if needed else None for grad, needed in zip(grads, need[:4], strict=True))
    return *wanted, *(None,) * 7


def _linear_preference_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:3], *output[3:])


def _linear_preference(ctx: Any, loss: Grad, *rest: Grad) -> tuple[Any, ...]:
    if loss is None:
        return (None,) * 18
    grads = torch.ops.suder.linear_preference_loss_backward.default(loss, *ctx.saved_tensors)
    need = ctx.needs_input_grad
    wanted = (grad if needed else None for grad, needed in zip(grads, need[:3], strict=True))
    return *wanted, *(None,) * 15


def _policy_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:2], *output[1:])


def _policy(ctx: Any, loss: Grad, *slopes: Grad) -> tuple[Any, ...]:
    if loss is None:
        return (None,) * 11
    grads = eager.call_backward("policy_loss_backward", loss, *ctx.saved_tensors)
    need = ctx.needs_input_grad
    wanted = (grad if needed else None for grad, needed in zip(grads, need[:4], strict=True))
    return *wanted, *(None,) * 7


def _second_order(name: str) -> str:
    return (
        f"suder_ext: second derivatives of {name} are not implemented (backward ran with "
        "create_graph=True); the float64 reference path, suder_ext.reference, has them"
    )


def _no_second_order(name: str) -> None:
    def backward(ctx: Any, *upstream: Grad) -> None:
        raise RuntimeError(_second_order(name))

    torch.library.register_autograd(f"suder::{name}_backward", backward, lib=library)


def _recorded(
    name: str, setup: Callable[..., None], backward: Callable[..., Any], results: int
) -> Any:
    """The CPU kernel with its gradient: half the cost of what register_autograd makes of them."""

    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        output: tuple[Tensor, ...] = eager.kernels[name](*inputs)
        setup(ctx, inputs, output)
        return output[:results]  # the rest is saved, and what nobody gets needs no record

    functions = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function = type(f"suder_{name}", (torch.autograd.Function,), functions)
    # Not its own apply, which first looks for wrappers of functorch: `eager` has done so.
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]


torch.library.register_autograd(
    "suder::linear_preference_loss",
    _linear_preference,
    setup_context=_linear_preference_setup,
    lib=library,
)
_no_second_order("linear_preference_loss")

for _name, _backward, _setup, _results in (  # results: all but the slopes
    ("linear_logprob", _linear_logprob, _linear_logprob_setup, 3),
    ("logprob", _logprob, _logprob_setup, 3),
    ("sequence_reduce", _sequence_reduce, _sequence_reduce_setup, 2),
    ("preference_loss", _preference, _preference_setup, 3),
    ("policy_loss", _policy, _policy_setup, 1),
):
    torch.library.register_autograd(f"suder::{_name}", _backward, setup_context=_setup, lib=library)
    _no_second_order(_name)
    eager.with_grad[_name] = _recorded(_name, _setup, _backward, _results)
