"""Gradients of operators that can themselves be transformed: those of the reference.

Kernels make numbers. Where somebody differentiates the backward (create_graph=True), runs it on a
batch of upstream gradients (is_grads_batched) or on dual tensors, the reference computes the
operator again from its saved inputs, every logit in memory, and autograd goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from suder_ext import _transforms, reference
from suder_ext.reference import policy


def wanted() -> bool:
    """Whether the backward that runs now must be one that torch can transform."""
    return torch.is_grad_enabled() or _transforms.active()


def gradients(
    op: str,
    tensors: Sequence[Tensor | None],
    options: Sequence[Any],
    needs: Sequence[bool],
    upstream: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Of sum(upstream * op(*tensors, *options)) by each argument that needs one, else None."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # A node of its own for each argument: two may be the same tensor.
        own = [None if t is None else t.view_as(t) for t in tensors]
        results = zip(OPERATORS[op](*own, *options), upstream, strict=False)
        used = [(result, grad.to(result.dtype)) for result, grad in results if grad is not None]
        wanted = {i: t for i, t in enumerate(own) if needs[i] and t is not None}
        grads = torch.autograd.grad(
            [result for result, _ in used],
            list(wanted.values()),
            [grad for _, grad in used],
            create_graph=create_graph,
            allow_unused=True,
        )
    by_place = dict(zip(wanted, grads, strict=True))
    return tuple(by_place.get(i) for i in range(len(needs)))


def _linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    *unused: Any,
) -> Sequence[Tensor]:
    return reference.linear_logprob_stats(
        hidden,
        weight,
        target,
        bias,
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap,
    )


def _linear_kl(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    ref_bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    *unused: Any,
) -> Sequence[Tensor]:
    kl = reference.linear_kl(
        hidden,
        weight,
        ref_hidden,
        ref_weight,
        bias,
        ref_bias,
        target,
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap,
    )
    return (kl,)


def _logprob(
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    *unused: Any,
) -> Sequence[Tensor]:
    return reference.logprob_stats(
        logits, target, ignore_index=ignore_index, temperature=temperature, softcap=softcap
    )


def _sequence_reduce(
    logprob: Tensor, target: Tensor, cu_seqlens: Tensor, mean: bool, ignore_index: int
) -> Sequence[Tensor]:
    return reference.sequence_reduce(
        logprob, target, cu_seqlens, mean=mean, ignore_index=ignore_index
    )


def _preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor | None,
    ref_rejected: Tensor | None,
    chosen_length: Tensor | None,
    rejected_length: Tensor | None,
    loss_type: Any,
    f_divergence: Any,
    beta: float,
    label_smoothing: float,
    margin: float,
    f_alpha: float,
    discopop_tau: float,
    likelihood_weight: float,
) -> Sequence[Tensor]:
    return reference.preference_loss(
        chosen,
        rejected,
        ref_chosen,
        ref_rejected,
        loss_type=loss_type,
        f_divergence=f_divergence,
        beta=beta,
        label_smoothing=label_smoothing,
        margin=margin,
        f_alpha=f_alpha,
        discopop_tau=discopop_tau,
        likelihood_weight=likelihood_weight,
        chosen_length=chosen_length,
        rejected_length=rejected_length,
    )


# Each takes the arguments of its operator and gives those of its results that have a gradient.
OPERATORS: dict[str, Callable[..., Sequence[Tensor]]] = {
    "linear_logprob": _linear_logprob,
    "linear_kl": _linear_kl,
    "logprob": _logprob,
    "sequence_reduce": _sequence_reduce,
    "preference_loss": _preference_loss,
    "policy_loss": policy.operator,
}
