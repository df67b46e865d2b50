"""The mean preference loss of linear_preference_loss with its gradients, one chunk of pairs after
another: logits, loss coefficients and both products of a chunk while its logits are at hand.

The head is `cpu/chunked_head.py`. Other devices do without: their forward keeps what saves the
product (`suder_ext.set_workspace`), and float32 sums of gradients would cost them more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from suder_ext import _checks
from suder_ext._ops import schemas  # noqa: F401  (defines what is called below)
from suder_ext.preference_options import SORTING

_ops = torch.ops.suder

# Where there is such a head.
DEVICES = frozenset({"cpu"})
# 256 MiB of float32 logits on the CPU: three pairs of 576 image tokens of 16384, or eleven of 30
# words each of 102400. With half of that, prompts take up to 9% longer; images do not.
CPU_WORKSPACE = 64 * 2**20


class Head(Protocol):
    """log p of the tokens of a chunk, and then the gradients of a function of them."""

    most_tokens: int
    """A chunk of so many tokens has its logits kept; those of a larger one are computed again."""

    def logprob(self, tokens: slice) -> Tensor: ...
    def add_gradients(self, tokens: slice, grad_logprob: Tensor) -> None: ...
    def gradients(self) -> tuple[Tensor, Tensor, Tensor]: ...


def chunks_of(offsets: list[int], most_tokens: int) -> Iterator[tuple[int, int]]:
    """First and last sequence of each chunk: whole pairs, as many as fit, at least one."""
    first = 0
    for start in range(2, len(offsets) - 2, 2):
        if offsets[start + 2] - offsets[first] > most_tokens:
            yield first, start
            first = start
    yield first, len(offsets) - 1


def mean_over(missing: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the pairs that are not missing, and its derivative by each pair."""
    ends = torch.arange(2, device=value.device) * value.shape[0]
    what = missing.long(), ends
    mean, count = _ops.sequence_reduce.default(value, *what, True, 1)
    slope = _ops.sequence_reduce_backward.default(torch.ones_like(mean), *what, count, True, 1)
    return mean[0], slope


def linear_preference_loss(
    head_type: Callable[..., Head],
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    cu_seqlens: Tensor,
    count: Tensor,
    ref_logprob: Tensor | None,
    loss_type: str,
    f_divergence: str,
    beta: float,
    label_smoothing: float,
    margin: float,
    f_alpha: float,
    discopop_tau: float,
    likelihood_weight: float,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    *needs: bool,
) -> tuple[Tensor, ...]:
    """Loss, rewards, and the float32 gradients of the loss, of a device with this kind of head.

    The loss kernel sees all pairs at each chunk, since some losses average over the batch's tokens;
    those whose turn is yet to come count as 0, and what it says of them is not read.
    """
    _checks.cu_seqlens_values(cu_seqlens, hidden.shape[0])
    offsets = cu_seqlens.tolist()
    cu_seqlens = cu_seqlens.to(hidden.device, non_blocking=True)
    head = head_type(hidden, weight, bias, target, (ignore_index, temperature, softcap), needs)
    missing = (count == 0).view(-1, 2).any(1)
    total = torch.zeros(count.shape, dtype=torch.float32, device=hidden.device)
    pairs = total.view(-1, 2)
    refs = (None, None) if ref_logprob is None else ref_logprob.view(-1, 2).unbind(1)
    lengths = count.view(-1, 2).unbind(1)
    # Ranks are of the whole batch.
    most_tokens = hidden.shape[0] if loss_type in SORTING else head.most_tokens
    results: tuple[Tensor, ...] = ()
    for first, last in chunks_of(offsets, most_tokens):
        tokens = slice(offsets[first], offsets[last])
        packed = target[tokens], cu_seqlens[first : last + 1] - tokens.start
        value, scored = _ops.sequence_reduce.default(
            head.logprob(tokens), *packed, False, ignore_index
        )
        total[first:last] = value.masked_fill(scored == 0, 0.0)
        results = _ops.preference_loss.default(
            *pairs.unbind(1),
            *refs,
            *lengths,
            loss_type,
            f_divergence,
            beta,
            label_smoothing,
            margin,
            f_alpha,
            discopop_tau,
            likelihood_weight,
        )
        slopes = _ops.preference_loss_backward.default(
            mean_over(missing, results[0])[1],
            None,
            None,
            *pairs.unbind(1),
            *results[3:],
            *lengths,
            loss_type,
            beta,
            False,
        )
        grad = torch.stack(slopes[:2], dim=1).view(-1)[first:last]
        grad = _ops.sequence_reduce_backward.default(grad, *packed, scored, False, ignore_index)
        head.add_gradients(tokens, grad)
    rewards = (reward.masked_fill(missing, torch.nan) for reward in results[1:3])
    return mean_over(missing, results[0])[0], *rewards, *head.gradients()
