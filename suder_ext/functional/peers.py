"""Drop-ins: functions other libraries have, under their names and in their argument order."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext import _checks
from suder_ext.functional.logprobs import logprob, logprob_and_lse
from suder_ext.reference.logprobs import wrong_targets

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
