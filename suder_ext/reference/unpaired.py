"""Losses of sequences that are each good or bad, without a partner, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from suder_ext.reference.logprobs import widen
from suder_ext.types import KtoLoss, KtoLossType


def check_kto_options(
    *,
    beta: float,
    loss_type: str,
    desirable_weight: float,
    undesirable_weight: float,
    has_kl: bool,
) -> None:
    """Raise ValueError, naming the argument, if the options make no loss or one is not used."""
    if not beta > 0:
        raise ValueError(f"beta is {beta}; it must be above 0")
    if loss_type not in ("kto", "apo_zero_unpaired"):
        raise ValueError(f"loss_type is {loss_type!r}; it must be 'kto' or 'apo_zero_unpaired'")
    for name, weight in (
        ("desirable_weight", desirable_weight),
        ("undesirable_weight", undesirable_weight),
    ):
        if not weight >= 0:
            raise ValueError(f"{name} is {weight}; it must be at least 0")
    if has_kl and loss_type != "kto":
        raise ValueError(
            f"kl is given; loss_type={loss_type!r} does not use it, so it must be None (loss that "
            "does: 'kto')"
        )


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
    """See `suder_ext.kto_loss`.

    KTO, arXiv 2402.01306, eqs. 7 and 8; APO-zero, arXiv 2408.06266, eq. 7, on single sequences. As
    the exponential of a log-sigmoid, whose derivative does not cancel where the sigmoid is near 1.
    """
    check_kto_options(
        beta=beta,
        loss_type=loss_type,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
        has_kl=kl is not None,
    )
    policy, ref = widen(logprob, ref_logprob)
    assert policy is not None
    dtype = policy.dtype
    log_ratio = policy.double()
    if ref is not None:
        log_ratio = log_ratio - ref.double()
    baseline: Tensor | float = 0.0
    if isinstance(kl, Tensor):
        baseline = kl.detach().double().clamp(min=0)
    elif kl is not None:
        baseline = max(float(kl), 0.0)
    good = desirable.bool()
    sign = torch.where(good, 1.0, -1.0).to(torch.float64)
    weight = sign.new_tensor(undesirable_weight).expand_as(sign)
    weight = torch.where(good, sign.new_tensor(desirable_weight), weight)
    loss = weight * logsigmoid(-sign * beta * (log_ratio - baseline)).exp()
    return KtoLoss(loss.to(dtype), (beta * log_ratio).to(dtype))
