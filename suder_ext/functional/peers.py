"""Drop-ins: functions other libraries have, under their names and in their argument order."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext import _checks, reference
from suder_ext._load import has_kernel
from suder_ext.functional.logprobs import linear_logprob, linear_logprob_stats, logprob


def selective_log_softmax(
    logits: Tensor, index: Tensor, temperature: float = 1.0, row_mask: Tensor | None = None
) -> Tensor:
    """log_softmax followed by gather, as TRL's function of that name (trl.trainer.utils).

    Unlike TRL's, 16-bit logits give float32 results computed in float32, and no index is ignored:
    each must be in `[0, V)`.

    Args:
        logits: float `[..., V]`.
        index: int64 or int32 `[...]`, or `[..., K]` for K entries of each row.
        temperature: above 0; the logits are divided by it.
        row_mask: `[...]` in the shape of index; zero where the result is to be 0.

    Returns:
        float32 in the shape of index (float64 if the logits are), differentiable in logits.

    Raises:
        TypeError, ValueError, IndexError: as `logprob`.
    """
    _checks.tensor("logits", logits, -1, _checks.FLOATS)
    _checks.tensor("index", index, -1, _checks.INTS)
    single = index.dim() == logits.dim() - 1
    if not single and index.dim() != logits.dim():
        raise ValueError(
            f"index takes shape [...] or [..., K] beside logits[..., V], "
            f"got {list(index.shape)} beside {list(logits.shape)}"
        )
    if row_mask is not None:
        _checks.shape("row_mask", row_mask, index.shape, "that of index")
    # A value no valid index has, so that every row is scored.
    unused = -(2**63)
    if single:
        picked = logprob(logits, index, ignore_index=unused, temperature=temperature)
    elif index.shape[-1] == 0:
        _checks.shape("index", index, (*logits.shape[:-1], 0), "that of logits, and K = 0")
        picked = logits.new_zeros(index.shape, dtype=torch.float32)
    else:
        _checks.shape("index", index, (*logits.shape[:-1], index.shape[-1]), "that of logits")
        # One exact log p a row; the others differ from it by the difference of two logits, which
        # keeps a large common offset out of the sum.
        first = logprob(logits, index[..., 0], ignore_index=unused, temperature=temperature)
        chosen = logits.gather(-1, index.to(torch.int64)).to(first.dtype)
        picked = first[..., None] + (chosen - chosen[..., :1]) / temperature
    return picked if row_mask is None else picked.masked_fill(row_mask == 0, 0.0)


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
        linear_weight: `[V, D]`, linear_bias: `[V]`, both in the dtype of input.
        target: int64 or int32 `[]` or `[N]`: class indices.
        reduction: "none", "mean" (over the rows not ignored; NaN if there is none) or "sum".
        ignore_index: rows with this target cost 0 and give no gradient; None means -100.
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
    if label_smoothing == 0.0:
        loss = -linear_logprob(hidden, weight, target, bias, ignore_index=ignored_target)
    else:
        stats = linear_logprob_stats(hidden, weight, target, bias, ignore_index=ignored_target)
        mean_logit = hidden.float() @ weight.mean(0, dtype=torch.float32)
        if bias is not None:
            mean_logit = mean_logit + bias.mean(dtype=torch.float32)
        uniform = (stats.lse - mean_logit).masked_fill(target == ignored_target, 0.0)
        loss = -(1 - label_smoothing) * stats.logprob + label_smoothing * uniform
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.sum() / (target != ignored_target).sum()
