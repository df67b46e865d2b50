"""The last linear layer, and the draw from the distribution that its logits are made into."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from suder.models.precision import exactly
from suder_ext import SampledToken, build_info, linear_sample_token, sample_token

# Of more tokens the logits are not held: they would be written, read and thrown away at every step.
# By the vocabulary alone, for the batch must not have a say in a token.
HELD = 8192


@dataclass(frozen=True)
class Rules:
    """Temperature, then top-k, then top-p: the order of transformers' samplers."""

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


class Head:
    """Draws from `hidden @ weight.T + bias`; no logit is rounded to 16 bits.

    Args:
        weight: `[V, D]`, bias: `[V]` or None; in the dtype of the products.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        kernels = build_info()["operators"]["linear_sample_token"]
        self.held = len(weight) <= HELD or weight.device.type not in kernels
        self.narrow = weight.is_cuda and weight.dtype.itemsize == 2
        wide = torch.promote_types(weight.dtype, torch.float32)
        if self.held and not self.narrow:
            # Only on a GPU are products of 16-bit factors written out as they are summed.
            weight, bias = weight.to(wide), None if bias is None else bias.to(wide)
        self.weight, self.bias = weight, bias

    def draw(self, hidden: Tensor, uniform: Tensor | None, rules: Rules) -> SampledToken:
        """Tokens int64 `[R]`, their log p and the entropy drawn at, float32 `[R]`.

        hidden: `[R, D]`; uniform: float64 `[R]`, or None for the most likely tokens.
        """
        options: Any = {
            "temperature": rules.temperature,
            "top_k": rules.top_k,
            "top_p": rules.top_p,
        }
        if self.held:
            drawn = sample_token(self.logits(hidden), uniform, **options)
        else:
            drawn = linear_sample_token(hidden, self.weight, uniform, self.bias, **options)
        return SampledToken(drawn.token, drawn.logprob.float(), drawn.entropy.float())

    def logits(self, hidden: Tensor) -> Tensor:
        with exactly(hidden.device):
            if not self.narrow:
                return F.linear(hidden.to(self.weight.dtype), self.weight, self.bias)
            logits = torch.mm(hidden, self.weight.T, out_dtype=torch.float32)
            return logits if self.bias is None else logits + self.bias
