"""The last linear layer and the draw from what it gives; no logit is rounded to 16 bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from suder.engine.rules import Rules
from suder.models.precision import exactly
from suder_ext import build_info, linear_sample_token, sample_token

# Of more tokens the logits are not held: they would be written, read and thrown away at every step.
# By the vocabulary alone, for the batch must not have a say in a token.
HELD = 8192


class Head:
    """Draws from `hidden @ weight.T + bias`.

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

    def draw(self, hidden: Tensor, uniform: Tensor | None, rules: Rules) -> tuple[Tensor, Tensor]:
        """Tokens int64 `[R]` and their log p float32 `[R]`.

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
        return drawn.token, drawn.logprob.float()

    def logits(self, hidden: Tensor) -> Tensor:
        with exactly(hidden.device):
            if not self.narrow:
                return F.linear(hidden.to(self.weight.dtype), self.weight, self.bias)
            logits = torch.mm(hidden, self.weight.T, out_dtype=torch.float32)
            return logits if self.bias is None else logits + self.bias
