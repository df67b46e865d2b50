"""Drop-ins: functions other libraries have, under their names and in their argument order."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext import _checks, reference
from suder_ext._load import has_kernel
from suder_ext.functional.logprobs import (
    linear_logprob,
    linear_logprob_and_lse,
    logprob,
    logprob_and_lse,
)
from suder_ext.reference.logprobs import without_ignored, wrong_targets

IGNORED = -(2**63)  # no index: nobody's target is ignored by chance


def selective_log_softmax(
    logits: Tensor, index: Tensor, temperature: float = 1.0, row_mask: Tensor | None = None
) -> Tensor:
    """log_softmax followed by gather, as TRL's function of that name (trl.trainer.utils).

    Unlike TRL's, 16-bit logits give float32 results computed in float32, and no index is ignored:
    each must be in `[0, V)` where row_mask is not 0.

    Args:
        logits: float `[..., V]`.
        index: an integer dtype, `[...]`, or `[..., K]` for K entries of each row.
        temperature: above 0; the logits are divided by it.
        row_mask: in the shape of index; 0 where the result is to be 0, without a gradient,
            whatever the index and the logits are.

    Returns:
        float32 in the shape of index (float64 if the logits are), differentiable in logits.

    Raises:
        TypeError, ValueError, IndexError: as `logprob`.
    """
    _checks.tensor("logits", logits, -1, _checks.FLOATS)
    _checks.tensor("index", index, -1, _checks.CLASSES)
    single = index.dim() == logits.dim() - 1
    if not single and index.dim() != logits.dim():
        raise ValueError(
            f"index takes shape [...] or [..., K] beside logits[..., V], "
            f"got {list(index.shape)} beside {list(logits.shape)}"
        )
    if row_mask is not None:
        _checks.shape("row_mask", row_mask, index.shape, "that of index")
    index = index.to(torch.int64)
    masked = None if row_mask is None else row_mask == 0
    if single:
        if masked is not None:
            index = index.masked_fill(masked, IGNORED)
        return logprob(logits, index, ignore_index=IGNORED, temperature=temperature)
    _checks.shape("index", index, (*logits.shape[:-1], index.shape[-1]), "that of logits")
    if index.shape[-1] == 0:
        return logits.new_zeros(index.shape, dtype=torch.float32)
    if masked is None:
        masked = torch.zeros_like(index, dtype=torch.bool)
    return _several_a_row(logits, index, masked, temperature)


def _several_a_row(logits: Tensor, index: Tensor, masked: Tensor, temperature: float) -> Tensor:
    """One exact log p a row, of the most probable of its entries. The others differ from it by the
    difference of two logits, which keeps a large common offset out of the sum.
    """
    takes = "where row_mask is not 0"
    wrong = wrong_targets(index, logits.shape[-1], masked, takes, "index")
    index = index.masked_fill(masked | wrong, 0)
    chosen = logits.gather(-1, index)
    place = chosen.argmax(-1, keepdim=True)
    anchor = index.gather(-1, place)[..., 0].masked_fill(masked.all(-1), IGNORED)
    first, lse = (
        result[..., None]
        for result in logprob_and_lse(logits, anchor, ignore_index=IGNORED, temperature=temperature)
    )
    chosen = chosen.to(first.dtype)
    highest = chosen.gather(-1, place)
    picked = torch.where(
        highest == -torch.inf,  # then all are, and a difference would be NaN
        chosen / temperature - lse,
        first + (chosen - highest) / temperature,
    )
    return picked.masked_fill(wrong, torch.nan).masked_fill(masked, 0.0)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of a linear head, as `torch.nn.functional.linear_cross_entropy` (torch 2.13).

    `-(1 - s) * log p(target) - s / V * sum_v log p(v)` with s = label_smoothing; the second term is
    `s * (lse - mean logit)`, and the mean logit is a product with the mean weight row, so that no
    `[tokens, V]` tensor is held.

    Args:
        input: float `[D]` or `[N, D]`.
        linear_weight: `[V, D]`, linear_bias: `[V]`; dtypes that differ as in `linear_logprob`.
        target: an integer dtype, `[]` or `[N]`: class indices.
        reduction: "none", "mean" (over the rows not ignored; NaN if there is none) or "sum".
        ignore_index: rows with this target cost 0 and give no gradient, whatever their input holds;
            None means -100.
        label_smoothing: in `[0, 1]`.

    Returns:
        float32 `[N]` or scalar (float64 if the inputs are), differentiable in input, weight, bias.

    Raises:
        TypeError, ValueError, IndexError: as `linear_logprob`. Class probabilities and class
            weights, which torch's function also takes, are not supported.
    """
    _checks.choice("reduction", reduction, ("none", "mean", "sum"))
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing takes a number in [0, 1], got {label_smoothing}")
    ignored_target = -100 if ignore_index is None else ignore_index
    _checks.tensor("target", target, -1, _checks.CLASSES)
    target = target.to(torch.int64)
    hidden, weight, bias = _checks.linear(
        input, linear_weight, target, linear_bias, names=("input", "linear_weight", "linear_bias")
    )
    if not has_kernel("linear_logprob", hidden):
        return reference.linear_cross_entropy(
            hidden,
            weight,
            target,
            linear_bias=bias,
            reduction=reduction,
            ignore_index=ignored_target,
            label_smoothing=label_smoothing,
        )
    ignored = target == ignored_target
    if label_smoothing == 0.0:
        loss = -linear_logprob(hidden, weight, target, bias, ignore_index=ignored_target)
    else:
        logprob, lse = linear_logprob_and_lse(
            hidden, weight, target, bias, ignore_index=ignored_target
        )
        uniform = (lse - _mean_logit(hidden, weight, bias, ignored)).masked_fill(ignored, 0.0)
        loss = label_smoothing * uniform
        if label_smoothing < 1:  # 0 times an infinite loss would be NaN
            loss = loss - (1 - label_smoothing) * logprob
        else:  # but a target that does not exist still costs its row
            loss = loss.masked_fill(logprob.isnan(), torch.nan)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.sum() / (~ignored).sum()


def _mean_logit(hidden: Tensor, weight: Tensor, bias: Tensor | None, ignored: Tensor) -> Tensor:
    """The mean of each row's logits, 0 where it is ignored: in a product with the gradient 0 of
    such a row, what it holds would reach the weight's gradient.
    """
    with torch.autocast(hidden.device.type, enabled=False):  # it would round both operands
        rows = without_ignored(hidden, ignored)
        mean = rows.float() @ weight.mean(0, dtype=torch.float32)
        return mean if bias is None else mean + bias.mean(dtype=torch.float32)
