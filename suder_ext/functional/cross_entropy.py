"""Cross-entropy of a linear head, under torch's name and in its argument order."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext import _checks, reference
from suder_ext._load import has_kernel
from suder_ext.functional.logprobs import linear_logprob, linear_logprob_and_lse
from suder_ext.reference.cross_entropy import check_options, reduced
from suder_ext.reference.logprobs import without_ignored


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: object = None,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """Cross-entropy of a linear head, as `torch.nn.functional.linear_cross_entropy` (torch 2.13).

    `-(1 - s) * w[target] * log p(target) - s / V * sum_v w[v] log p(v)`, with s = label_smoothing
    and w the class weights or 1; or, of class probabilities q, `-sum_v w[v] q'[v] log p(v)` with
    `q' = (1 - s) q + s / V`. A sum of logits over the classes is a product with a sum of the head's
    rows, so that no `[tokens, V]` tensor is held but a target that is one.

    Args:
        input: float `[..., D]`.
        linear_weight: `[V, D]`, linear_bias: `[V]`; dtypes that differ as in `linear_logprob`.
        target: an integer dtype, `[...]`: class indices; or float `[..., V]`: class probabilities.
        weight: float `[V]`, of each class; "mean" of class indices then divides by the sum of
            their weights, as torch's. A constant.
        reduction: "none", "mean" (over the rows not ignored; NaN if there is none) or "sum".
        ignore_index: rows with this target cost 0 and give no gradient, whatever their input holds;
            None means -100. Not taken with class probabilities.
        label_smoothing: in `[0, 1]`.
        options: torch's chunking strategy; accepted, and of no use here.
        z_loss: at least 0; `z_loss * logsumexp(logits)^2` a row more (arXiv 2204.02311, section 5),
            with "mean" its mean over the rows not ignored.
        temperature, softcap: as in `linear_logprob`. A softcap takes class indices and no
            label_smoothing: of capped logits a sum over all classes takes every one.

    Returns:
        float32 `[...]` or scalar (float64 if the inputs are), differentiable in input,
        linear_weight, linear_bias and class probabilities.

    Raises:
        TypeError, ValueError, IndexError: as `linear_logprob`.
    """
    _checks.choice("reduction", reduction, ("none", "mean", "sum"))
    _checks.tensor("target", target, -1, _checks.CLASSES | _checks.FLOATS)
    _checks.tensor("linear_weight", linear_weight, 2, _checks.FLOATS)
    probabilities = target.is_floating_point()
    check_options(label_smoothing, z_loss, softcap, ignore_index, probabilities)
    rows = target if not probabilities else target.new_zeros(target.shape[:-1], dtype=torch.int64)
    if probabilities:
        size = (*input.shape[:-1], linear_weight.shape[0])
        _checks.shape("target", target, size, "that of input with the V of linear_weight[V, D]")
    rows = rows.to(torch.int64)
    ignored_target = -100 if ignore_index is None else ignore_index
    names = "input", "linear_weight", "linear_bias"
    hidden, head, bias = _checks.linear(
        input, linear_weight, rows, linear_bias, temperature, softcap, names
    )
    if weight is not None:
        _checks.tensor("weight", weight, 1, _checks.FLOATS)
        _checks.shape("weight", weight, head.shape[:1], "the V of linear_weight[V, D]")
        _checks.same_device("weight", weight, "input", input)
        weight = weight.detach()
    if not has_kernel("linear_logprob", hidden):
        return reference.linear_cross_entropy(
            hidden,
            head,
            target,
            linear_bias=bias,
            weight=weight,
            reduction=reduction,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            temperature=temperature,
            softcap=softcap,
        )
    ignored = rows == ignored_target if not probabilities else torch.zeros_like(rows).bool()
    settings = {"ignore_index": ignored_target, "temperature": temperature, "softcap": softcap}
    lse: Tensor | None = None
    if probabilities or label_smoothing > 0 or z_loss > 0:
        logprob, lse = linear_logprob_and_lse(hidden, head, rows, bias, **settings)  # type: ignore[arg-type]
    else:
        logprob = linear_logprob(hidden, head, rows, bias, **settings)  # type: ignore[arg-type]
    picked_weight = None if weight is None else weight.float()[rows.where(_exists(rows, head), 0)]
    if probabilities:
        assert lse is not None
        share = target.float()
        if label_smoothing > 0:
            share = (1 - label_smoothing) * share + label_smoothing / head.shape[0]
        loss = _of_probabilities(hidden, head, bias, share, weight, temperature, lse)
    elif label_smoothing == 0.0:
        loss = -logprob if picked_weight is None else -logprob * picked_weight
    else:
        assert lse is not None
        uniform = _uniform(hidden, head, bias, ignored, weight, temperature, lse)
        loss = label_smoothing * uniform.masked_fill(ignored, 0.0)
        if label_smoothing < 1:  # 0 times an infinite loss would be NaN
            own = logprob if picked_weight is None else logprob * picked_weight
            loss = loss - (1 - label_smoothing) * own
        else:  # but a target that does not exist still costs its row
            loss = loss.masked_fill(logprob.isnan(), torch.nan)
    extra = None if z_loss == 0 or lse is None else z_loss * lse.masked_fill(ignored, 0.0) ** 2
    if probabilities:
        picked_weight = None
    return reduced(loss, extra, ignored, picked_weight, reduction)


def _exists(target: Tensor, head: Tensor) -> Tensor:
    return (target >= 0) & (target < head.shape[0])


def _uniform(
    hidden: Tensor,
    head: Tensor,
    bias: Tensor | None,
    ignored: Tensor,
    weight: Tensor | None,
    temperature: float,
    lse: Tensor,
) -> Tensor:
    """-mean over v of w[v] log p(v). Rows that are ignored are taken as 0: in a product with the
    gradient 0 of such a row, what it holds would reach the weight's gradient.
    """
    with torch.autocast(hidden.device.type, enabled=False):  # it would round both operands
        rows = without_ignored(hidden, ignored)
        if weight is None:
            mean = rows.float() @ head.mean(0, dtype=torch.float32)
            mean = mean if bias is None else mean + bias.mean(dtype=torch.float32)
            return lse - (mean if temperature == 1 else mean / temperature)
        share = weight.float() / head.shape[0]
        mean = rows.float() @ (share @ head.float())
        mean = mean if bias is None else mean + share @ bias.float()
        return lse * share.sum() - mean / temperature


def _of_probabilities(
    hidden: Tensor,
    head: Tensor,
    bias: Tensor | None,
    share: Tensor,
    weight: Tensor | None,
    temperature: float,
    lse: Tensor,
) -> Tensor:
    """-sum over v of w[v] q[v] log p(v), q being the classes' share."""
    with torch.autocast(hidden.device.type, enabled=False):
        if weight is not None:
            share = share * weight.float()
        logit = (hidden.float() * (share @ head.float())).sum(-1)
        logit = logit if bias is None else logit + share @ bias.float()
        return lse * share.sum(-1) - logit / temperature
