"""Drawing the next token, with the log-probability and the entropy it was drawn at."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from suder_ext import _checks, _ops, reference
from suder_ext._load import has_kernel
from suder_ext._ops import eager
from suder_ext.types import SampledToken


def sample_token(
    logits: Tensor,
    uniform: Tensor | None,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> SampledToken:
    """One token of each row's distribution, by inverting its cumulative distribution.

    `token = the first v with sum_{u <= v} p_u > uniform`, p being softmax(logits / temperature)
    cut to the `top_k` largest (ties with the k-th too) and then to the smallest set, from the
    largest down, that holds the probability `top_p`: the order of transformers' samplers. One
    number a row, whatever the vocabulary, and the same number gives the same token in any batch.

    Args:
        logits: float `[R, V]`; -inf for tokens that cannot be.
        uniform: float64 or float32 `[R]` in [0, 1), or None: the most likely token, of equals the
            first.
        temperature: above 0.
        top_k: 0: all.
        top_p: in (0, 1]; 1: all.

    Returns:
        SampledToken(token int64, logprob float32, entropy float32), each `[R]`, without gradient;
        float64 if the logits are. logprob and entropy are of the distribution drawn from, after
        temperature and truncation, greedy or not. A row with NaN or +inf, or nothing but -inf, has
        none: token 0, NaN.

    Raises:
        TypeError, ValueError: a dtype, shape, device or setting that is not taken.
    """
    _checks.tensor("logits", logits, 2, _checks.FLOATS)
    if logits.shape[1] == 0:
        raise ValueError(f"logits takes shape [R, V] with V >= 1, got {list(logits.shape)}")
    _settings(uniform, "logits", logits, temperature, top_k, top_p)
    logits = logits.detach()  # a tangent, too, ends here
    if not has_kernel("sample_token", logits):
        return reference.sample_token(
            logits, uniform, temperature=temperature, top_k=top_k, top_p=top_p
        )
    return _draw("sample_token", uniform, logits, temperature, top_k, top_p)


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
    """`sample_token` from hidden states; the logits `hidden @ weight.T + bias` are never held.

    Without truncation the vocabulary is read once, and for each token the part of it that its
    uniform number falls into once more, with the same bits. `top_k` and `top_p` need whole rows:
    as many at a time as a fixed workspace holds. For guidance mix the hidden states: the last
    layer being linear, that mixes the logits.

    Args:
        hidden: float `[R, D]`.
        weight: float `[V, D]`, bias: `[V]`; dtypes that differ as in `linear_logprob`.
        uniform, temperature, top_k, top_p: as in `sample_token`.

    Returns:
        SampledToken, as `sample_token`. Products and sums are float32; no logit is rounded to 16
        bits.

    Raises:
        TypeError, ValueError: a dtype, shape, device or setting that is not taken.
    """
    _checks.tensor("hidden", hidden, 2, _checks.FLOATS)
    unused = torch.empty(hidden.shape[:1], dtype=torch.int64, device=hidden.device)
    hidden, weight, bias = _checks.linear(hidden, weight, unused, bias)
    _settings(uniform, "hidden", hidden, temperature, top_k, top_p)
    hidden, weight = hidden.detach(), weight.detach()
    bias = None if bias is None else bias.detach()
    if not has_kernel("linear_sample_token", hidden, weight, bias):
        return reference.linear_sample_token(
            hidden, weight, uniform, bias, temperature=temperature, top_k=top_k, top_p=top_p
        )
    return _draw("linear_sample_token", uniform, hidden, weight, bias, temperature, top_k, top_p)


def _draw(op: str, uniform: Tensor | None, *arguments: Any) -> SampledToken:
    """Calls an operator, the short way if that is possible."""
    tensors, settings = arguments[:-3], arguments[-3:]
    tensors = (*tensors, None if uniform is None else uniform.double())
    if eager.ready(op, *tensors):
        return SampledToken(*eager.call(op, *tensors, *settings))
    return SampledToken(*getattr(_ops, op)(*tensors, *settings))


def _settings(
    uniform: Tensor | None, name: str, rows: Tensor, temperature: float, top_k: int, top_p: float
) -> None:
    if uniform is not None:
        _checks.tensor("uniform", uniform, 1, frozenset({torch.float64, torch.float32}))
        _checks.shape("uniform", uniform, rows.shape[:1], f"the R of {name}")
        _checks.same_device("uniform", uniform, name, rows)
    _checks.positive("temperature", temperature)
    if math.isinf(temperature):
        raise ValueError("temperature takes a finite number, got inf")
    if top_k < 0:
        raise ValueError(f"top_k takes a number from 0 (all), got {top_k}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p takes a number in (0, 1], got {top_p}")
