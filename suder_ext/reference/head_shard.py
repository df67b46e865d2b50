"""A shard of the linear head in plain PyTorch, all of its logits held."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext._ops.head_shards import IGNORED, Grads, Head
from suder_ext.reference.logprobs import final_logits, widen, without_ignored


class ReferenceShard:
    """See `head_shards.Shard`; the gradient of float64 hidden states is float64."""

    def forward(
        self, head: Head, with_entropy: bool, keep_logits: int, with_argmax: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        z = _logits(head, head.hidden, head.weight, head.bias).double()
        highest = z.amax(-1)
        d = z - highest.masked_fill(highest == -torch.inf, 0.0)[:, None]
        e = d.exp()
        weighted = (e * d.masked_fill(e == 0, 0.0)).sum(-1)
        chosen = z.gather(1, head.target.clamp(min=0)[:, None])[:, 0]
        argmax = z.argmax(-1) if with_argmax else head.target.new_zeros(0)
        return torch.stack([highest, e.sum(-1), weighted, chosen], dim=1), z.new_zeros(0), argmax

    def backward(
        self,
        head: Head,
        upstream: Grads,
        lse: Tensor,
        entropy: Tensor,
        kept: Tensor,
        needs: tuple[bool, ...],
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden, *_ = widen(head.hidden, head.weight)
        assert hidden is not None
        inputs = hidden, head.weight, head.bias
        own = [None if t is None else t.detach().requires_grad_() for t in inputs]
        assert own[0] is not None
        assert own[1] is not None
        with torch.enable_grad():
            z = _logits(head, own[0], own[1], own[2])
        grad = _logit_gradient(z.detach(), head.target, upstream, lse, entropy)
        wanted = {i: t for i, t in enumerate(own) if t is not None and needs[i]}
        grads = torch.autograd.grad(z, list(wanted.values()), grad)
        by_place = dict(zip(wanted, grads, strict=True))
        nothing = z.new_zeros(0)
        return by_place.get(0, nothing), by_place.get(1, nothing), by_place.get(2, nothing)


def _logits(head: Head, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    ignored = head.target == IGNORED
    hidden = without_ignored(hidden, ignored)
    z = final_logits(hidden, weight, bias, head.temperature, head.softcap)
    return without_ignored(z, ignored)


def _logit_gradient(
    z: Tensor, target: Tensor, upstream: Grads, lse: Tensor, entropy: Tensor
) -> Tensor:
    """p (g_lse - g_logprob - g_entropy (log p + entropy)), and g_logprob at the target."""
    ignored = target == IGNORED
    of_logprob, of_lse, of_entropy = (
        torch.zeros_like(lse) if grad is None else grad.masked_fill(ignored, 0.0)
        for grad in upstream
    )
    log_p = z - lse[:, None]
    p = log_p.exp()
    factor = (of_lse - of_logprob)[:, None]
    if upstream[2] is not None:
        log_p = log_p.masked_fill(p == 0, 0.0)
        factor = factor - of_entropy[:, None] * (log_p + entropy[:, None])
    grad = without_ignored(p * factor, ignored)
    return grad.scatter_add(1, target.clamp(min=0)[:, None], of_logprob[:, None].to(grad.dtype))
