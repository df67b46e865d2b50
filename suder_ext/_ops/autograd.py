"""Gradients of the operators. Every upstream gradient may be absent; none is assumed uniform.

The backward operators are not differentiable, an error and never a silent zero. Where a gradient is
to be differentiated or transformed, `by_reference` makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from suder_ext import _transforms
from suder_ext._ops import by_reference, eager
from suder_ext._ops.schemas import library

Grad = Tensor | None


def _linear_logprob_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[3:])
    ctx.save_for_backward(*inputs[:4], *output[1:4])
    ctx.options = inputs[4:]


def _linear_logprob(ctx: Any, *upstream: Grad) -> tuple[Any, ...]:
    need = ctx.needs_input_grad
    grads = eager.call_backward(
        "linear_logprob_backward", *upstream[:3], *ctx.saved_tensors, *ctx.options[:3], *need[:3]
    )
    hidden, weight, bias = (
        grad if wanted else None for grad, wanted in zip(grads, need[:3], strict=True)
    )
    return hidden, weight, bias, *(None,) * 7


def _linear_kl_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:7], *output)
    ctx.options = inputs[7:]


def _linear_kl(ctx: Any, kl: Grad, *rest: Grad) -> tuple[Any, ...]:
    if kl is None:
        return (None,) * 11
    need = ctx.needs_input_grad[:6]
    arguments = kl, *ctx.saved_tensors, *ctx.options[:3], list(need)
    grads = eager.call_backward("linear_kl_backward", *arguments)
    wanted = (grad if needed else None for grad, needed in zip(grads, need, strict=True))
    return *wanted, *(None,) * 5


def _logprob_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:2], output[1], output[2])
    ctx.options = inputs[2:]


def _logprob(ctx: Any, logprob: Grad, lse: Grad, entropy: Grad) -> tuple[Any, ...]:
    grad = eager.call_backward(
        "logprob_backward", logprob, lse, entropy, *ctx.saved_tensors, *ctx.options[:3]
    )
    return grad, None, None, None, None, None


def _sequence_reduce_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:3], output[1])
    ctx.options = inputs[3:]


def _sequence_reduce(ctx: Any, value: Grad, count: Grad) -> tuple[Any, ...]:
    if value is None:
        return (None,) * 5
    grad = eager.call_backward(
        "sequence_reduce_backward", value, *ctx.saved_tensors[1:], *ctx.options
    )
    return grad, None, None, None, None


def _preference_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[3:])
    ctx.save_for_backward(*inputs[:6], *output[3:])
    ctx.options = inputs[6:]


def _preference(ctx: Any, *upstream: Grad) -> tuple[Any, ...]:
    need = ctx.needs_input_grad
    chosen, rejected, _, _, *lengths, chosen_slope, rejected_slope, partner = ctx.saved_tensors
    loss_type, _, beta, *_ = ctx.options
    grads = eager.call_backward(
        "preference_loss_backward",
        *upstream[:3],
        chosen,
        rejected,
        chosen_slope,
        rejected_slope,
        partner,
        *lengths,
        loss_type,
        beta,
        need[2] or need[3],
    )
    wanted = (grad if needed else None for grad, needed in zip(grads, need[:4], strict=True))
    return *wanted, *(None,) * 10


def _linear_preference_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:3], *output[3:])


def _linear_preference(ctx: Any, loss: Grad, *rest: Grad) -> tuple[Any, ...]:
    if loss is None:
        return (None,) * 21
    if _transforms.active():  # of the upstream gradient alone: the slopes are from before
        slopes = ctx.saved_tensors[3:]
        grads = tuple((loss * slope).to(ctx.saved_tensors[0].dtype) for slope in slopes)
    else:
        grads = torch.ops.suder.linear_preference_loss_backward.default(loss, *ctx.saved_tensors)
    need = ctx.needs_input_grad
    wanted = (grad if needed else None for grad, needed in zip(grads, need[:3], strict=True))
    return *wanted, *(None,) * 18


def _policy_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:7], *output[2:])
    ctx.options = inputs[7:]


def _policy(ctx: Any, loss: Grad, *others: Grad) -> tuple[Any, ...]:
    options = (None,) * (2 + len(ctx.options))
    if loss is None:
        return (None,) * 5 + options
    logprob, old_logprob, _, _, _, _, _, *saved = ctx.saved_tensors
    grads = eager.call_backward("policy_loss_backward", loss, logprob, old_logprob, *saved)
    need = ctx.needs_input_grad
    wanted = (grad if needed else None for grad, needed in zip(grads, need[:5], strict=True))
    return *wanted, *options


def _second_order(name: str) -> str:
    return (
        f"suder_ext: second derivatives of {name} are not implemented (backward ran with "
        "create_graph=True); suder_ext.reference has them"
    )


def _no_second_order(name: str) -> None:
    def backward(ctx: Any, *upstream: Grad) -> None:
        raise RuntimeError(_second_order(name))

    torch.library.register_autograd(f"suder::{name}_backward", backward, lib=library)


def _transformable(
    name: str, backward: Callable[..., tuple[Any, ...]], tensors: int
) -> Callable[..., tuple[Any, ...]]:
    """The gradient by kernels, or by the reference where it is to be transformed."""

    def choose(ctx: Any, *upstream: Grad) -> tuple[Any, ...]:
        if not by_reference.wanted():
            return backward(ctx, *upstream)
        inputs = ctx.saved_tensors[:tensors]
        return by_reference.gradients(name, inputs, ctx.options, ctx.needs_input_grad, upstream)

    return choose


def _recorded(
    name: str, setup: Callable[..., None], backward: Callable[..., Any], results: int
) -> Any:
    """The CPU kernel with its gradient: half the cost of what register_autograd makes of them."""

    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        output: tuple[Tensor, ...] = eager.kernel(name, inputs[0])(*inputs)
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

# tensors: how many come before the options, all of them saved; results: all but the slopes.
for _name, _backward, _setup, _tensors, _results in (
    ("linear_logprob", _linear_logprob, _linear_logprob_setup, 4, 3),
    ("linear_kl", _linear_kl, _linear_kl_setup, 7, 1),
    ("logprob", _logprob, _logprob_setup, 2, 3),
    ("sequence_reduce", _sequence_reduce, _sequence_reduce_setup, 3, 2),
    ("preference_loss", _preference, _preference_setup, 6, 3),
    ("policy_loss", _policy, _policy_setup, 7, 2),
):
    _backward = _transformable(_name, _backward, _tensors)
    torch.library.register_autograd(f"suder::{_name}", _backward, setup_context=_setup, lib=library)
    _no_second_order(_name)
    eager.with_grad[_name] = _recorded(_name, _setup, _backward, _results)
