"""Random packed pairs for linear_preference_loss, and the sizes of what makes up its results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from suder_ext import PreferenceLoss, reference
from suder_ext._ops import pair_chunks
from suder_ext.functional import pairs
from suder_ext.preference_options import (
    REFERENCE_FREE,
    TAKES_F_DIVERGENCE,
    TAKES_LABEL_SMOOTHING,
    TAKES_LENGTH,
    TAKES_MARGIN,
)
from suder_ext.reference.sequences import segment_ids
from tests.ops.cases import Case, linear_case


@contextmanager
def workspace(floats: int) -> Iterator[None]:
    """Pairs go in chunks, however few their tokens, in a workspace of so many floats."""
    with (
        mock.patch.object(pairs, "FEW_TOKENS", -(10**12)),
        mock.patch.object(pair_chunks, "CPU_WORKSPACE", floats),
    ):
        yield


def pair_case(
    pairs: int,
    dtype: torch.dtype = torch.float32,
    *,
    seed: int = 0,
    longest: int = 9,
    features: int = 12,
    vocab: int = 70,
    with_reference: bool = True,
    **options: Any,
) -> Case:
    """2 * pairs sequences of 1 to `longest` tokens; every loss can be taken of them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (2 * pairs,), generator=generator)
    cu_seqlens = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    case = linear_case(int(cu_seqlens[-1]), features, vocab, dtype, seed=seed, **options)
    packed = {"cu_seqlens": cu_seqlens, "reduction": "mean"}
    if with_reference and options.get("loss_type") not in REFERENCE_FREE:
        # Near the policy: an f-divergence takes the exponential of the difference.
        total = replace(case, options={"cu_seqlens": cu_seqlens, "reduction": "sum"}).double()
        own = total.run(reference.linear_sequence_logprob).nan_to_num().float()
        packed["ref_logprob"] = own + torch.randn(2 * pairs, generator=generator)
    return replace(case, options={**packed, **case.options})


def taken(loss_type: str, **options: Any) -> dict[str, Any]:
    """Those of the options that the loss takes, and its name."""
    takes = {
        "label_smoothing": TAKES_LABEL_SMOOTHING,
        "margin": TAKES_MARGIN,
        "f_divergence": TAKES_F_DIVERGENCE,
        "chosen_length": TAKES_LENGTH,
        "rejected_length": TAKES_LENGTH,
    }
    kept = {name: x for name, x in options.items() if loss_type in takes.get(name, {loss_type})}
    return {"loss_type": loss_type, **kept}


def taken_logprobs(loss_type: str, logprobs: list[Tensor]) -> list[Tensor]:
    """Those of chosen, rejected and their references that the loss takes."""
    return logprobs[:2] if loss_type in REFERENCE_FREE else logprobs


def loss_options(loss_type: str) -> dict[str, Any]:
    """Every term of the loss at work."""
    return taken(loss_type, label_smoothing=0.1, margin=0.3, beta=0.2)


class Outcome(NamedTuple):
    loss: Tensor
    rewards: tuple[Tensor, Tensor]
    grads: dict[str, Tensor]


def outcome(
    case: Case, function: Any, upstream: float = 1.0, wanted: tuple[str, ...] | None = None
) -> Outcome:
    """Results, and gradients of upstream * loss."""
    names = tuple(case.floats) if wanted is None else wanted
    leaves = {name: t.detach().requires_grad_(name in names) for name, t in case.floats.items()}
    result: PreferenceLoss = replace(case, floats=leaves).run(function)
    grad = torch.full_like(result.loss, upstream)
    grads = torch.autograd.grad(result.loss, [leaves[name] for name in names], grad)
    return Outcome(result.loss.detach(), result[1:], dict(zip(names, grads, strict=True)))


def terms_of(case: Case) -> tuple[dict[str, float], float]:
    """The largest sum of sizes of the terms of each gradient, and of those of the loss.

    An error of each logit in proportion to its size changes a result by a fraction of this.
    """
    floats, options = case.double().floats, dict(case.options)
    hidden, weight = floats["hidden"], floats["weight"]
    softcap, cu_seqlens = options.pop("softcap", None), options.pop("cu_seqlens").long()
    del options["reduction"]
    options.setdefault("loss_type", "sigmoid")
    z = hidden @ weight.t() + floats.get("bias", torch.zeros(1).double())
    if softcap:
        z = softcap * (z / softcap).tanh()
    target, scored = case.target.clamp(min=0).long(), ~case.ignored
    logprob = z.log_softmax(1).gather(1, target[:, None])[:, 0].masked_fill(~scored, 0.0)
    total, count = reference.sequence_reduce(logprob, case.target, cu_seqlens, mean=False)
    missing = (count == 0).view(-1, 2).any(1)
    refs = options.pop("ref_logprob", None)

    def mean(total: Tensor) -> Tensor:
        result = reference.preference_loss(
            *total.view(-1, 2).unbind(1),
            *(() if refs is None else refs.double().view(-1, 2).unbind(1)),
            **taken(**options, chosen_length=count[0::2], rejected_length=count[1::2]),
        )
        return result.loss.masked_fill(missing, 0.0).sum() / max(1, int((~missing).sum()))

    total = total.nan_to_num().requires_grad_()
    (slope,) = torch.autograd.grad(mean(total), total)
    # A total is rounded to float32, some 20 times finer than the limits, and slopes depend on it.
    bend = torch.autograd.functional.hessian(mean, total.detach()).abs() @ total.detach().abs()
    slope = slope.abs() + 0.05 * bend
    upstream = slope[segment_ids(cu_seqlens, len(scored))] * scored
    one_hot = torch.nn.functional.one_hot(target, weight.shape[0])
    sizes = upstream[:, None] * (z.softmax(1) + one_hot)
    sums = {
        "hidden": sizes @ weight.abs(),
        "weight": sizes.t() @ hidden.abs(),
        "bias": sizes.sum(0),
    }
    largest = {name: float(t.max()) if t.numel() else 0.0 for name, t in sums.items()}
    return largest, float((upstream * z.abs().amax(1).clamp(min=1)).sum())
