"""Random inputs of linear_kl, and their float64 oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import suder_ext
from suder_ext import reference
from tests.ops.backends import running
from tests.ops.cases import Case, gradients, linear_case
from tests.ops.compare import assert_close, grad_kind, rounds_each_logit

SIDES = ("", "ref_")


def kl_case(
    tokens: int,
    features: int,
    ref_features: int,
    vocab: int,
    dtype: torch.dtype = torch.float32,
    *,
    seed: int = 0,
    **options: Any,
) -> Case:
    """Two heads of one vocabulary, as `linear_case` makes them."""
    policy = linear_case(tokens, features, vocab, dtype, seed=seed, **options)
    other = linear_case(tokens, ref_features, vocab, dtype, seed=seed + 1, **options)
    floats = {**policy.floats, **{f"ref_{name}": t for name, t in other.floats.items()}}
    return replace(policy, floats=floats)


def final_logits(case: Case, side: str) -> Tensor:
    """In float64, without the code that is tested."""
    hidden, weight = case.floats[f"{side}hidden"].double(), case.floats[f"{side}weight"].double()
    logits = hidden @ weight.t()
    if f"{side}bias" in case.floats:
        logits = logits + case.floats[f"{side}bias"].double()
    softcap = case.options.get("softcap")
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits / case.options.get("temperature", 1.0)


def upstream_for(case: Case, seed: int = 5) -> dict[str, Tensor]:
    """Upstream gradients of both signs, some of them 0; the result goes by one name."""
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(case.target.shape, generator=generator)
    return {"logprob": grad.masked_fill(torch.rand(grad.shape, generator=generator) < 0.2, 0.0)}


def run(
    case: Case,
    upstream: dict[str, Tensor],
    wanted: tuple[str, ...] | None = None,
    function: Callable[..., Any] = suder_ext.linear_kl,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The divergence, and gradients of sum(upstream * divergence) by argument."""
    results, grads = gradients(case, function, upstream, wanted)
    return results["logprob"], grads


def oracle(case: Case, upstream: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    return run(case.double(), upstream, function=reference.linear_kl)


def terms(case: Case, upstream: dict[str, Tensor], *, rounded: bool) -> dict[str, float]:
    """Of the sums that make the gradients: the largest sum of sizes of terms (see cases.py).

    Gradients of logits are such sums themselves, of log p, log q and the divergence, which inherit
    the rounding of the logits. Where they are rounded to 16 bits that counts alone, and `rounded`
    takes them as they are.
    """
    log_p, log_q = (torch.log_softmax(final_logits(case, side), -1) for side in SIDES)
    p, q = log_p.exp(), log_q.exp()
    difference = (log_p - log_q).masked_fill(p == 0, 0.0)
    kl = (p * difference).sum(-1, keepdim=True)
    grad = upstream["logprob"].abs().double().masked_fill(case.ignored, 0.0)[..., None]
    grad = grad / case.options.get("temperature", 1.0)
    policy = (difference - kl).abs() if rounded else difference.abs() + kl.abs()
    result = {}
    for side, size in zip(SIDES, (grad * p * policy, grad * (p + q)), strict=True):
        hidden, weight = (case.floats[f"{side}{n}"].double().abs() for n in ("hidden", "weight"))
        sums = {"hidden": size @ weight, "weight": size.t() @ hidden, "bias": size.sum(0)}
        result |= {f"{side}{n}": float(t.max()) if t.numel() else 0.0 for n, t in sums.items()}
    return result


def check(case: Case, upstream: dict[str, Tensor]) -> None:
    """Result and gradients of the public function against the oracle."""
    logits = torch.cat([final_logits(case, side).reshape(-1) for side in SIDES])
    largest = float(logits[logits.isfinite()].abs().max()) if logits.numel() else 0.0
    expected, expected_grads = oracle(case, upstream)
    got, grads = run(case, upstream)
    assert got.dtype == torch.float32
    assert bool((got >= 0).all())
    assert not got[case.ignored].any()
    assert_close(got, expected, "kl", case.dtype, max(1.0, largest))
    rounded = rounds_each_logit(case.dtype) or (
        case.dtype == torch.bfloat16 and running() == "avx512bf16"
    )
    sizes = terms(case, upstream, rounded=rounded)
    for name, grad in grads.items():
        assert grad.dtype == case.dtype
        kind = kl_grad_kind(name, case.dtype)
        args = kind, case.dtype, max(1.0, largest), sizes[name]
        assert_close(grad, expected_grads[name], *args)
    for side in SIDES:
        assert not grads[f"{side}hidden"][case.ignored].any()


def kl_grad_kind(name: str, dtype: torch.dtype) -> str:
    """As for linear_logprob; nothing is kept of a forward on CUDA."""
    name = name.removeprefix("ref_")
    return "grad_bias" if name == "bias" else grad_kind(name, dtype)
