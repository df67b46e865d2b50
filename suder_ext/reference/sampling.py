"""Drawing one token of each row in plain PyTorch, every logit held in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suder_ext.reference.logprobs import widen
from suder_ext.types import SampledToken


@torch.no_grad()
def sample_token(
    logits: Tensor,
    uniform: Tensor | None,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> SampledToken:
    """As `suder_ext.sample_token`."""
    (wide,) = widen(logits)
    assert wide is not None
    cut = _cut(wide / temperature, top_k, top_p)
    logprob = cut.log_softmax(-1)
    probability = logprob.exp()
    entropy = -torch.where(probability > 0, probability * logprob, probability).sum(-1)
    none = logprob.isnan().any(-1)
    if uniform is None:
        token = cut.argmax(-1)
    else:
        cumulative = probability.cumsum(-1, dtype=torch.float64)
        level = uniform.to(cumulative)[:, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, level, right=True).squeeze(-1)
        # Rounding may leave the level at the total: then it is the last token that is possible.
        places = torch.arange(cut.shape[-1], device=cut.device)
        last = torch.where(probability > 0, places, 0).amax(-1)
        token = torch.minimum(token, last)
    token = token.masked_fill(none, 0)
    chosen = logprob.gather(-1, token[:, None]).squeeze(-1)
    return SampledToken(token, chosen.clamp(max=0.0), entropy)


def linear_sample_token(
    hidden: Tensor,
    weight: Tensor,
    uniform: Tensor | None,
    bias: Tensor | None = None,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> SampledToken:
    """As `suder_ext.linear_sample_token`."""
    wide_hidden, wide_weight, wide_bias = widen(hidden, weight, bias)
    assert wide_hidden is not None
    assert wide_weight is not None
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        logits = F.linear(wide_hidden, wide_weight, wide_bias)
    return sample_token(logits, uniform, temperature=temperature, top_k=top_k, top_p=top_p)


def _cut(z: Tensor, top_k: int, top_p: float) -> Tensor:
    """-inf in place of what top_k, and then top_p, leave out."""
    if 0 < top_k < z.shape[-1]:
        z = z.masked_fill(z < z.topk(top_k, dim=-1).values[:, -1:], -torch.inf)
    if top_p < 1:
        ordered, order = z.sort(dim=-1, descending=True, stable=True)
        probability = ordered.softmax(-1)
        # What stands before an entry, by itself: the sum up to it less it would lose its digits.
        before = F.pad(probability.cumsum(-1, dtype=torch.float64)[:, :-1], (1, 0))
        out = torch.zeros_like(z, dtype=torch.bool).scatter_(-1, order, before >= top_p)
        z = z.masked_fill(out, -torch.inf)
    return z
