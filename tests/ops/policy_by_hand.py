"""The policy losses sequence by sequence as their papers write them, in float64 with autograd."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

DEFAULTS: dict[str, Any] = {
    "clip": 0.2,
    "clip_high": None,
    "delta": None,
    "kl_coef": 0.0,
    "kl_estimator": "k3",
    "kl_bias_correction": False,
    "reduction": None,
    "level": "token",
    "loss_type": "grpo",
    "max_length": None,
    "num_items": None,
    "sampling_mode": "token_truncate",
    "sampling_min": None,
    "sampling_max": 3.0,
    "top_entropy_quantile": 1.0,
    "sapo_temperature": (1.0, 1.05),
    "vespo_k": (2.0, 3.0),
    "vespo_lambda": (3.0, 2.0),
}
REDUCTION = {
    "bnpo": "token",
    "dapo": "token",
    "cispo": "token",
    "vespo": "token",
    "gpg": "token",
    "dr_grpo": "constant",
    "luspo": "sum",
}


def sequences(t: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors of each, all of them per token."""
    offsets = t["cu_seqlens"].tolist()
    tokens = offsets[-1]
    rows = []
    for i, (a, b) in enumerate(itertools.pairwise(offsets)):
        row = {name: x[a:b] for name, x in t.items() if x.shape == (tokens,)}
        if "advantage" not in row:
            row["advantage"] = t["advantage"][i].expand(b - a)
        rows.append(row)
    return rows


def sampler(row: dict[str, Tensor], o: dict[str, Any]) -> Tensor | None:
    if "sampling_logprob" not in row:
        return None
    log = (row["old_logprob"] - row["sampling_logprob"]).detach()
    ratio = (log.sum().expand_as(log) if "sequence" in o["sampling_mode"] else log).exp()
    least, most = o["sampling_min"] or 0.0, o["sampling_max"]
    if "truncate" in o["sampling_mode"]:
        return ratio.clamp(least, most)
    return ratio * ((ratio >= least) & (ratio <= most))


def policy_terms(row: dict[str, Tensor], o: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Each token's first term, and the ratio of the level."""
    new, a = row["logprob"], row["advantage"]
    log = new - row["old_logprob"]
    ratio = (log.mean().expand_as(log) if o["level"] == "sequence" else log).exp()
    low, high = o["clip"], o["clip"] if o["clip_high"] is None else o["clip_high"]
    kind, by_sampler = o["loss_type"], sampler(row, o)
    if kind == "cispo":
        term = -ratio.detach().clamp(max=high) * a * new
    elif kind == "gpg":
        term = -a * new
    elif kind == "sapo":
        t = torch.where(a > 0, *(torch.tensor(x).double() for x in o["sapo_temperature"]))
        term = -4 / t / (1 + (-t * (ratio - 1)).exp()) * a
    elif kind == "gmpo":
        s = a.sign()
        limited = s * torch.minimum(s * log, s * log.clamp(-low, high))
        term = -limited.mean().exp() * a
    elif kind == "vespo":
        w = log.detach()
        if by_sampler is not None:
            w = w + by_sampler.clamp(min=1e-8).log()
        w = w.clamp(-20, 20).sum().exp().clamp(1e-8, torch.tensor(20.0).double().exp())
        k, lam = (
            torch.where(a >= 0, *(torch.tensor(x).double() for x in o[name]))
            for name in ("vespo_k", "vespo_lambda")
        )
        return -(w**k) * (lam * (1 - w)).exp() * a * new, ratio
    else:
        kept = ratio if o["delta"] is None else ratio.clamp(max=o["delta"])
        term = -torch.minimum(kept * a, ratio.clamp(1 - low, 1 + high) * a)
    return term if by_sampler is None else term * by_sampler, ratio


def estimates(row: dict[str, Tensor], ratio: Tensor, o: dict[str, Any]) -> Tensor:
    if "ref_logprob" not in row:
        return torch.zeros_like(ratio)
    d = row["ref_logprob"] - row["logprob"]
    kl = {"k1": -d, "k2": d**2 / 2, "k3": d.exp() - 1 - d}[o["kl_estimator"]]
    return kl * ratio if o["kl_bias_correction"] else kl


def by_hand(*, num_items: float | None = None, **arguments: Any) -> Tensor:
    o = {name: arguments.get(name, default) for name, default in DEFAULTS.items()}
    t = {name: x for name, x in arguments.items() if isinstance(x, Tensor)}
    rows = [row for row in sequences(t) if row["logprob"].numel()]
    costs = []
    for row in rows:
        term, ratio = policy_terms(row, o)
        if "token_weight" in row:
            term = term * row["token_weight"]
        if "entropy" in row:
            least = torch.quantile(t["entropy"], 1 - o["top_entropy_quantile"])
            term = term * (row["entropy"] >= least)
        costs.append(term + o["kl_coef"] * estimates(row, ratio, o))
    reduction = o["reduction"] or REDUCTION.get(o["loss_type"], "sequence")
    count = num_items or (t["cu_seqlens"].numel() - 1)
    if reduction == "token":
        return torch.cat(costs).sum() / (num_items or t["logprob"].numel())
    if reduction == "sequence":
        return torch.stack([cost.mean() for cost in costs]).sum() / count
    if reduction == "sum":
        return torch.cat(costs).sum() / count
    return torch.cat(costs).sum() / (count * (o["max_length"] or t["cu_seqlens"].diff().max()))


def metrics_by_hand(**arguments: Any) -> dict[str, Tensor]:
    o = {name: arguments.get(name, default) for name, default in DEFAULTS.items()}
    t = {name: x for name, x in arguments.items() if isinstance(x, Tensor)}
    low, high = o["clip"], o["clip"] if o["clip_high"] is None else o["clip_high"]
    parts: dict[str, list[Tensor]] = {name: [] for name in ("clip_low", "clip_high", "kl", "ratio")}
    for row in sequences(t):
        if not row["logprob"].numel():
            continue
        a = row["advantage"]
        log, (_, ratio) = row["logprob"] - row["old_logprob"], policy_terms(row, o)
        stopped = torch.zeros_like(a, dtype=torch.bool), torch.zeros_like(a, dtype=torch.bool)
        if o["loss_type"] == "gmpo":
            stopped = (log < -low) & (a < 0), (log > high) & (a > 0)
        elif o["loss_type"] == "cispo":
            stopped = stopped[0], (ratio > high) & (a > 0)
        elif o["loss_type"] not in ("sapo", "vespo", "gpg"):
            stopped = (ratio < 1 - low) & (a < 0), (ratio > 1 + high) & (a > 0)
        for name, values in zip(parts, (*stopped, estimates(row, ratio, o), ratio), strict=True):
            whole = o["level"] == "sequence" and name != "kl"
            parts[name].append(values.double().mean()[None] if whole else values.double())
    return {name: torch.cat(values).mean() for name, values in parts.items()}
