"""Per-token log-probabilities in plain PyTorch, every logit held in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suder_ext import _transforms
from suder_ext.types import LogprobStats, RankedStats


def widen(*tensors: Tensor | None) -> list[Tensor | None]:
    """Cast to float64 if any argument is float64, else to float32."""
    double = any(t is not None and t.dtype == torch.float64 for t in tensors)
    dtype = torch.float64 if double else torch.float32
    return [None if t is None else t.to(dtype) for t in tensors]


def final_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, softcap: float | None
) -> Tensor:
    wide_hidden, wide_weight, wide_bias = widen(hidden, weight, bias)
    assert wide_hidden is not None
    assert wide_weight is not None
    with torch.autocast(hidden.device.type, enabled=False):  # it would round the logits
        logits = F.linear(wide_hidden, wide_weight, wide_bias)
    return _scaled(logits, temperature, softcap)


def without_ignored(rows: Tensor, ignored: Tensor) -> Tensor:
    """Zeroed before, not after: a NaN would reach a gradient as 0 * NaN."""
    return rows.masked_fill(ignored[..., None], 0.0)


def _scaled(logits: Tensor, temperature: float, softcap: float | None) -> Tensor:
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits if temperature == 1.0 else logits / temperature


def wrong_targets(
    target: Tensor,
    vocab: int | Tensor,
    ignored: Tensor,
    takes: str = "or equal to ignore_index",
    name: str = "target",
) -> Tensor:
    """Rows without a target; an IndexError if any, except where nobody can look at the values."""
    wrong = ((target < 0) | (target >= vocab)) & ~ignored
    if _transforms.values_are_known(target) and bool(wrong.any()):
        row = int(wrong.reshape(-1).nonzero()[0])
        value = int(target.reshape(-1)[row])
        raise IndexError(f"{name}[{row}] is {value}; it must be in [0, {vocab}) {takes}")
    return wrong


def _stats(logits: Tensor, target: Tensor, ignore_index: int, entropy: bool) -> LogprobStats:
    target = target.long()  # uint8 holds no ignore_index of -100
    ignored = target == ignore_index
    wrong = wrong_targets(target, logits.shape[-1], ignored)
    logits = without_ignored(logits, ignored)  # the bias, too, may hold anything
    index = target.masked_fill(ignored | wrong, 0)
    log_p = F.log_softmax(logits, dim=-1)
    picked = log_p.gather(-1, index[..., None])[..., 0].masked_fill(ignored, 0.0)
    if not _transforms.values_are_known(target):
        picked = picked.masked_fill(wrong, torch.nan)
    lse = torch.logsumexp(logits, dim=-1).masked_fill(ignored, 0.0)
    if not entropy:
        return LogprobStats(picked, lse, lse.new_zeros(0))
    p = log_p.exp()
    # p log p is 0 where p is 0, but 0 * -inf is not.
    h = -(p * log_p.masked_fill(p == 0, 0.0)).sum(-1)
    return LogprobStats(picked, lse, h.masked_fill(ignored, 0.0))


def ranked(stats: LogprobStats, argmax: Tensor, target: Tensor, ignore_index: int) -> RankedStats:
    """With the arg max of each row's logits, where there is a distribution."""
    nothing = (target == ignore_index) | stats.logprob.isnan()
    return RankedStats(*stats, argmax.masked_fill(nothing, 0), (argmax == target) & ~nothing)


def linear_logprob_stats(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    argmax: bool = False,
    entropy: bool = True,
) -> LogprobStats | RankedStats:
    """See `suder_ext.linear_logprob_stats`; without `entropy` that field holds nothing."""
    hidden = without_ignored(hidden, target.long() == ignore_index)
    logits = final_logits(hidden, weight, bias, temperature, softcap)
    stats = _stats(logits, target, ignore_index, entropy)
    if not argmax:
        return stats
    return ranked(stats, logits.detach().argmax(-1), target.long(), ignore_index)


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """See `suder_ext.linear_logprob`."""
    hidden = without_ignored(hidden, target.long() == ignore_index)
    logits = final_logits(hidden, weight, bias, temperature, softcap)
    return _stats(logits, target, ignore_index, entropy=False).logprob


def logprob_stats(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    entropy: bool = True,
) -> LogprobStats:
    """See `suder_ext.logprob_stats`; without `entropy` that field holds nothing."""
    (wide,) = widen(without_ignored(logits, target.long() == ignore_index))
    assert wide is not None
    return _stats(_scaled(wide, temperature, softcap), target, ignore_index, entropy)


def logprob(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """See `suder_ext.logprob`."""
    (wide,) = widen(without_ignored(logits, target.long() == ignore_index))
    assert wide is not None
    return _stats(_scaled(wide, temperature, softcap), target, ignore_index, entropy=False).logprob
