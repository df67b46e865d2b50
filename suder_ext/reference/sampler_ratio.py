"""What a policy loss multiplies a token's surrogate by before it is made: a few products of torch,
for every backend the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from suder_ext.policy_options import SAMPLING_MODES
from suder_ext.reference.sequences import segment_ids, sequence_reduce

MAX_LOG_RATIO = 88.0  # the ratio stays finite in float32
MIN_LOG_RATIO = -18.420680743952367  # log(1e-8), VESPO's least


def check_weights(
    *,
    mode: str,
    least: float | None,
    most: float | None,
    has_sampler: bool,
    has_entropy: bool,
    top_entropy_quantile: float,
    in_the_ratio: bool,
) -> None:
    """Raise ValueError, naming the argument, if the options make no weight or one is not used."""
    if mode not in SAMPLING_MODES:
        raise ValueError(
            f"sampling_mode is {mode!r}; it must be one of {', '.join(SAMPLING_MODES)}"
        )
    if has_sampler and in_the_ratio and mode.startswith("sequence"):
        raise ValueError(
            f"sampling_mode is {mode!r}; loss_type='vespo' takes 'token_truncate' or 'token_mask', "
            "as its own ratio is the sequence's"
        )
    if least is not None and not least >= 0:
        raise ValueError(f"sampling_min is {least}; it must be at least 0")
    if most is not None and not most > (least or 0.0):
        raise ValueError(f"sampling_max is {most}; it must be above sampling_min ({least or 0})")
    if not 0 < top_entropy_quantile <= 1:
        raise ValueError(f"top_entropy_quantile is {top_entropy_quantile}; it must be in (0, 1]")
    if has_entropy != (top_entropy_quantile < 1):
        raise ValueError(
            f"entropy is {'given' if has_entropy else 'None'} and top_entropy_quantile is "
            f"{top_entropy_quantile}; a quantile below 1 and entropy, float [T], go together"
        )


def token_weights(
    old_logprob: Tensor,
    cu_seqlens: Tensor,
    token_weight: Tensor | None,
    sampling_logprob: Tensor | None,
    *,
    in_the_ratio: bool,
    mode: str,
    least: float | None,
    most: float | None,
    entropy: Tensor | None,
    top_entropy_quantile: float,
    reduce: Callable[..., tuple[Tensor, Tensor]] = sequence_reduce,
) -> tuple[Tensor | None, Tensor | None]:
    """The token weights that a loss then takes, and the log of the sampler's ratio where it is not
    among them.

    The sampler's ratio (truncated importance sampling) and the mask of the tokens of high entropy
    (arXiv 2506.01939) are constants, which no gradient goes through. `in_the_ratio`: the sampler's
    ratio goes into the policy's own, not beside it (VESPO). `reduce`: whose `sequence_reduce`.
    """
    check_weights(
        mode=mode,
        least=least,
        most=most,
        has_sampler=sampling_logprob is not None,
        has_entropy=entropy is not None,
        top_entropy_quantile=top_entropy_quantile,
        in_the_ratio=in_the_ratio,
    )
    factors, inside = ([] if token_weight is None else [token_weight]), None
    if sampling_logprob is not None:
        log_ratio = old_logprob.detach() - sampling_logprob.detach()
        log_ratio = log_ratio.masked_fill(sampling_logprob.detach().isnan(), 0.0)
        if mode.startswith("sequence"):
            target = torch.zeros_like(log_ratio, dtype=torch.int64)
            total = reduce(log_ratio, target, cu_seqlens, mean=False)[0]
            log_ratio = total[segment_ids(cu_seqlens, log_ratio.numel())]
        ratio = limited(log_ratio.double().clamp(max=MAX_LOG_RATIO).exp(), mode, least, most)
        if in_the_ratio:
            inside = ratio.log().clamp(MIN_LOG_RATIO, 20.0).to(old_logprob.dtype)
        else:
            factors.append(ratio.to(old_logprob.dtype))
    if entropy is not None and entropy.numel():
        threshold = torch.quantile(entropy.detach().float(), 1 - top_entropy_quantile)
        factors.append((entropy.detach() >= threshold).to(old_logprob.dtype))
    weight: Tensor | None = None
    for factor in factors:
        weight = factor if weight is None else weight * factor
    return weight, inside


def limited(ratio: Tensor, mode: str, least: float | None, most: float | None) -> Tensor:
    """The ratio within its limits, or 0 where it is outside."""
    if mode.endswith("truncate"):
        return ratio if least is None and most is None else ratio.clamp(least, most)
    outside = torch.zeros_like(ratio, dtype=torch.bool)
    if least is not None:
        outside = outside | (ratio < least)
    if most is not None:
        outside = outside | (ratio > most)
    return ratio.masked_fill(outside, 0.0)
