"""Cross-entropy of a linear head in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suder_ext.reference.logprobs import final_logits, widen, without_ignored, wrong_targets


def check_options(
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    ignore_index: int | None,
    probabilities: bool,
) -> None:
    """Raise ValueError, naming the argument, if the options make no loss."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing takes a number in [0, 1], got {label_smoothing}")
    if not z_loss >= 0:
        raise ValueError(f"z_loss takes a number of at least 0, got {z_loss}")
    if softcap is not None and (probabilities or label_smoothing > 0):
        raise ValueError(
            f"softcap takes class indices and label_smoothing 0, got softcap {softcap} with "
            + ("class probabilities" if probabilities else f"label_smoothing {label_smoothing}")
        )
    if probabilities and ignore_index is not None:
        raise ValueError(f"ignore_index takes None beside class probabilities, got {ignore_index}")


def reduced(
    loss: Tensor,
    extra: Tensor | None,
    ignored: Tensor,
    weight: Tensor | None,
    reduction: str,
) -> Tensor:
    """The rows' losses together; `extra`: their z-loss, `weight`: that of each row's class."""
    if reduction == "none":
        return loss if extra is None else loss + extra
    if reduction == "sum":
        return loss.sum() if extra is None else loss.sum() + extra.sum()
    rows = (~ignored).sum()
    mean = loss.sum() / (rows if weight is None else weight.masked_fill(ignored, 0.0).sum())
    return mean if extra is None else mean + extra.sum() / rows


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
    """See `suder_ext.linear_cross_entropy`."""
    probabilities = target.is_floating_point()
    check_options(label_smoothing, z_loss, softcap, ignore_index, probabilities)
    hidden, head, bias = widen(input, linear_weight, linear_bias)
    assert hidden is not None
    assert head is not None
    shape = hidden.shape[:-1]
    ignored = torch.zeros(shape, dtype=torch.bool, device=hidden.device)
    if not probabilities:
        target = target.long()
        ignored = target == (-100 if ignore_index is None else ignore_index)
    hidden = without_ignored(hidden, ignored)
    logits = final_logits(hidden, head, bias, temperature, softcap)
    log_p = F.log_softmax(logits, dim=-1)
    classes = log_p if weight is None else log_p * weight.detach().to(log_p.dtype)
    row_weight: Tensor | None = None
    if probabilities:
        share = (1 - label_smoothing) * target.to(log_p.dtype) + label_smoothing / head.shape[0]
        loss = -(share * classes).sum(-1)
    else:
        wrong = wrong_targets(target, head.shape[0], ignored)
        place = target.masked_fill(ignored | wrong, 0)
        loss = -classes.gather(-1, place[..., None])[..., 0].masked_fill(wrong, torch.nan)
        if label_smoothing == 1:  # and not 0 times a loss that may be infinite
            loss = -classes.mean(-1).masked_fill(wrong, torch.nan)
        elif label_smoothing > 0:
            loss = (1 - label_smoothing) * loss - label_smoothing * classes.mean(-1)
        if weight is not None:
            row_weight = weight.detach().to(log_p.dtype)[place]
    loss = loss.masked_fill(ignored, 0.0)
    extra = None
    if z_loss > 0:
        extra = z_loss * logits.logsumexp(-1).masked_fill(ignored, 0.0) ** 2
    return reduced(loss, extra, ignored, row_weight, reduction)
