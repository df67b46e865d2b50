"""Losses of sequences that are each good or bad, without a partner."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext import _checks, reference
from suder_ext.types import KtoLoss, KtoLossType


def kto_loss(
    logprob: Tensor,
    desirable: Tensor,
    ref_logprob: Tensor | None = None,
    *,
    beta: float = 0.1,
    kl: Tensor | float | None = None,
    loss_type: KtoLossType = "kto",
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> KtoLoss:
    """Loss and implicit reward of B sequences that somebody called good or bad: KTO.

    With `r = logprob - ref_logprob`, a desirable sequence costs
    `desirable_weight * (1 - sigmoid(beta * (r - kl)))`, another
    `undesirable_weight * (1 - sigmoid(beta * (kl - r)))` (arXiv 2402.01306, eqs. 7 and 8).
    "apo_zero_unpaired" is the same without the KL (arXiv 2408.06266). A few operations of torch on
    `[B]` in float64, the same on every device.

    Args:
        logprob: float `[B]`, sums over each sequence.
        desirable: bool or integer `[B]`: not 0 is good.
        ref_logprob: float `[B]` of the reference model; None: 0.
        beta: above 0.
        kl: the reference point, a scalar tensor or a number: the mean log-ratio of completions that
            belong to other prompts, over all processes. A constant; below 0 it counts as 0, as
            does None.
        loss_type: "kto" or "apo_zero_unpaired".
        desirable_weight, undesirable_weight: at least 0.

    Returns:
        KtoLoss(loss `[B]`, reward `[B]`), float32 (float64 if an input is), differentiable in
        logprob and ref_logprob; the reward is `beta * (logprob - ref_logprob)`.

    Raises:
        TypeError, ValueError: an argument that is not taken, naming it.
    """
    _checks.tensor("logprob", logprob, 1, _checks.FLOATS)
    _checks.tensor("desirable", desirable, 1, _checks.CLASSES | {torch.bool})
    _checks.shape("desirable", desirable, logprob.shape, "that of logprob")
    _checks.same_device("desirable", desirable, "logprob", logprob)
    if ref_logprob is not None:
        _checks.like("ref_logprob", ref_logprob, "logprob", logprob)
    if isinstance(kl, Tensor):
        _checks.tensor("kl", kl, 0, _checks.FLOATS)
        _checks.same_device("kl", kl, "logprob", logprob)
    return reference.kto_loss(
        logprob,
        desirable,
        ref_logprob,
        beta=beta,
        kl=kl,
        loss_type=loss_type,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
    )
