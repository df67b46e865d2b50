"""The distribution a token is drawn from: temperature, then top-k, then top-p, in float32."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Distribution:
    """How logits become a distribution; the order is that of transformers' samplers."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature: takes a finite number above 0, got {self.temperature}; "
                "for the most likely token ask for greedy=True"
            )
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                "top_k takes integers from 0 (off), top_p numbers in (0, 1]; "
                f"got top_k={self.top_k}, top_p={self.top_p}"
            )


def log_distribution(logits: Tensor, rules: Distribution) -> Tensor:
    """log p `[R, V]` float32 of the next token; -inf for tokens that are ruled out."""
    logits = logits.float()
    if rules.temperature != 1:
        logits = logits / rules.temperature
    if 0 < rules.top_k < logits.shape[-1]:
        # Ties with the k-th are kept, as transformers does.
        least = logits.topk(rules.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if rules.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        probability = ordered.softmax(-1)
        before = probability.cumsum(-1) - probability
        # Kept while what stands before holds less than top_p: the first token always is.
        out = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, order, before >= rules.top_p)
        logits = logits.masked_fill(out, -torch.inf)
    return logits.log_softmax(-1)


def sample_token(
    logits: Tensor, rules: Distribution, uniform: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Tokens int64 `[R]` and their log-probabilities float32 `[R]`.

    Drawn by inverting the cumulative distribution at `uniform` (float64 `[R]` in [0, 1)): one
    random number a token, whatever the vocabulary. Greedy takes no random number.
    """
    logprob = log_distribution(logits, rules)
    if rules.greedy or uniform is None:
        token = logits.argmax(-1)
    else:
        cumulative = logprob.exp().cumsum(-1, dtype=torch.float64)
        total = cumulative[:, -1:]
        # Below the total even if the product rounds up to it: a token of probability 0 behind the
        # last possible one is never hit.
        level = torch.minimum(uniform.unsqueeze(-1) * total, total.nextafter(-total))
        token = torch.searchsorted(cumulative, level, right=True).squeeze(-1)
        token.clamp_(max=logits.shape[-1] - 1)  # a row of NaN has no token; `sample` says so
    return token, logprob.gather(-1, token.unsqueeze(-1)).squeeze(-1)
