"""Preference losses from hidden states."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext import _checks
from suder_ext.functional.logprobs import linear_logprob
from suder_ext.functional.preference import preference_loss
from suder_ext.functional.sequences import sequence_reduce
from suder_ext.types import FDivergence, LossType, PreferenceLoss


def linear_preference_loss(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    cu_seqlens: Tensor,
    bias: Tensor | None = None,
    ref_logprob: Tensor | None = None,
    *,
    loss_type: LossType = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    f_divergence: FDivergence = "reverse_kl",
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> PreferenceLoss:
    """`preference_loss` from hidden states: the logits are never held, the gradients are exact.

    Sequences 2i and 2i+1 are the chosen and the rejected of pair i. The log-probabilities are sums
    over the scored tokens, and the lengths that some losses need are their counts. Extra memory is
    that of `linear_logprob`: a fixed workspace plus O(T).

    Args:
        hidden: `[T, D]`; weight, bias, ignore_index, temperature, softcap: as in `linear_logprob`.
        target: int64 or int32 `[T]`.
        cu_seqlens: int64 or int32 `[2P + 1]`, sorted from 0 to T.
        ref_logprob: float `[2P]`, the reference model's sums in the same order, or None.
        loss_type, beta, label_smoothing, margin, f_divergence: as in `preference_loss`.

    Returns:
        PreferenceLoss of three `[P]`, differentiable in hidden, weight and bias. A pair one of
        whose sequences has no scored token gives NaN and no gradient.

    Raises:
        TypeError, ValueError, IndexError: as `linear_sequence_logprob` and `preference_loss`.
    """
    _checks.cu_seqlens(cu_seqlens, "hidden", hidden)
    if cu_seqlens.shape[0] % 2 == 0:
        raise ValueError(
            f"cu_seqlens takes shape [2P+1] (chosen and rejected of each pair), "
            f"got {list(cu_seqlens.shape)}"
        )
    if ref_logprob is not None:
        _checks.tensor("ref_logprob", ref_logprob, 1, _checks.FLOATS)
        _checks.shape(
            "ref_logprob", ref_logprob, (cu_seqlens.shape[0] - 1,), "the 2P of cu_seqlens[2P+1]"
        )
    per_token = linear_logprob(
        hidden,
        weight,
        target,
        bias,
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap,
    )
    total, count = sequence_reduce(
        per_token, target, cu_seqlens, mean=False, ignore_index=ignore_index
    )
    # The NaN of a sequence without tokens goes around the loss: a pair that is left out of the mean
    # (upstream gradient 0) must not turn its partner's gradient into 0 * NaN.
    nothing = count == 0
    total = total.masked_fill(nothing, 0.0)
    result = preference_loss(
        total[0::2],
        total[1::2],
        None if ref_logprob is None else ref_logprob[0::2],
        None if ref_logprob is None else ref_logprob[1::2],
        loss_type=loss_type,
        beta=beta,
        label_smoothing=label_smoothing,
        margin=margin,
        f_divergence=f_divergence,
        chosen_length=count[0::2],
        rejected_length=count[1::2],
    )
    missing = nothing[0::2] | nothing[1::2]
    return PreferenceLoss(*(value.masked_fill(missing, torch.nan) for value in result))
