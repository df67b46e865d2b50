"""Random inputs of the log-likelihood operators, and their float64 oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from suder_ext import LogprobStats, reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
OUTPUTS = ("logprob", "lse", "entropy")


@dataclass(frozen=True)
class Case:
    """Arguments of a log-likelihood function; `floats` are those that take a gradient."""

    floats: dict[str, Tensor]
    target: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self.floats.values())).dtype

    @property
    def ignored(self) -> Tensor:
        return self.target == self.options.get("ignore_index", -100)

    def double(self) -> Case:
        return replace(self, floats={name: t.double() for name, t in self.floats.items()})

    def run(self, function: Callable[..., Any]) -> Any:
        return function(**self.floats, target=self.target, **self.options)


def linear_case(
    tokens: int,
    features: int,
    vocab: int,
    dtype: torch.dtype = torch.float32,
    *,
    seed: int = 0,
    bias: bool = True,
    ignored: float = 0.2,
    spread: float = 1.0,
    **options: Any,
) -> Case:
    """Logits of standard deviation `spread`; a fraction of the rows ignored."""
    generator = torch.Generator().manual_seed(seed)
    floats = {
        "hidden": torch.randn(tokens, features, generator=generator),
        "weight": torch.randn(vocab, features, generator=generator)
        * (spread / max(features, 1) ** 0.5),
    }
    if bias:
        floats["bias"] = torch.randn(vocab, generator=generator)
    target = _targets(tokens, vocab, ignored, generator, options.get("ignore_index", -100))
    return Case({name: t.to(dtype) for name, t in floats.items()}, target, options)


def logits_case(
    tokens: int,
    vocab: int,
    dtype: torch.dtype = torch.float32,
    *,
    seed: int = 0,
    ignored: float = 0.2,
    spread: float = 3.0,
    **options: Any,
) -> Case:
    """The same from logits."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, vocab, generator=generator) * spread
    target = _targets(tokens, vocab, ignored, generator, options.get("ignore_index", -100))
    return Case({"logits": logits.to(dtype)}, target, options)


def _targets(
    tokens: int, vocab: int, ignored: float, generator: torch.Generator, ignore_index: int
) -> Tensor:
    target = torch.randint(vocab, (tokens,), generator=generator)
    return target.masked_fill(torch.rand(tokens, generator=generator) < ignored, ignore_index)


def upstream_for(
    case: Case, seed: int = 1, outputs: tuple[str, ...] = OUTPUTS
) -> dict[str, Tensor]:
    """Upstream gradients of both signs, some of them 0."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name in outputs:
        grad = torch.randn(case.target.shape, generator=generator)
        result[name] = grad.masked_fill(torch.rand(grad.shape, generator=generator) < 0.2, 0.0)
    return result


def gradients(
    case: Case,
    function: Callable[..., LogprobStats | Tensor],
    upstream: dict[str, Tensor],
    wanted: tuple[str, ...] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Results by name, and gradients of sum(upstream * result) by argument."""
    names = tuple(case.floats) if wanted is None else wanted
    # Not cloned: a clone would be contiguous, and the layout is part of the case.
    leaves = {name: t.detach().requires_grad_(name in names) for name, t in case.floats.items()}
    results = replace(case, floats=leaves).run(function)
    named = results._asdict() if isinstance(results, LogprobStats) else {"logprob": results}
    used = [named[name] for name in upstream]
    grads = torch.autograd.grad(
        used,
        [leaves[name] for name in names],
        [upstream[name].to(result.dtype) for name, result in zip(upstream, used, strict=True)],
    )
    return {name: t.detach() for name, t in named.items()}, dict(zip(names, grads, strict=True))


def oracle(case: Case, upstream: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`gradients` of the reference in float64, on the very same (already rounded) inputs."""
    name = "logprob_stats" if "logits" in case.floats else "linear_logprob_stats"
    return gradients(case.double(), getattr(reference, name), upstream)


def final_logits(case: Case) -> Tensor:
    """Final logits in float64."""
    floats, options = case.double().floats, case.options
    z = floats["hidden"] @ floats["weight"].t()
    z = z + floats["bias"] if "bias" in floats else z
    if options.get("softcap"):
        z = options["softcap"] * (z / options["softcap"]).tanh()
    return z / options.get("temperature", 1.0)


def product_terms(case: Case, upstream: dict[str, Tensor]) -> dict[str, float]:
    """Of the sums that make the gradients of a linear case: the largest sum of sizes of terms.

    Rounding the gradient of each logit changes an element by a fraction of this, whatever cancels.
    """
    hidden, weight = (case.floats[name].double() for name in ("hidden", "weight"))
    logits = hidden @ weight.t() + case.floats.get("bias", torch.zeros(1)).double()
    _, grads = oracle(replace(case, floats={"logits": logits}), upstream)
    sizes = grads["logits"].abs()
    sums = {
        "hidden": sizes @ weight.abs(),
        "weight": sizes.t() @ hidden.abs(),
        "bias": sizes.sum(0),
    }
    return {name: float(t.max()) if t.numel() else 0.0 for name, t in sums.items()}
