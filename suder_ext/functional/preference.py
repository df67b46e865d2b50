"""Preference losses on pairs of sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext import _checks, _ops, reference
from suder_ext._load import has_kernel
from suder_ext._ops import eager
from suder_ext.functional.logprobs import linear_logprob
from suder_ext.functional.sequences import sequence_reduce
from suder_ext.preference_options import check_preference_options
from suder_ext.types import FDivergence, LossType, PreferenceLoss


def preference_loss(
    chosen_logprob: Tensor,
    rejected_logprob: Tensor,
    ref_chosen_logprob: Tensor | None = None,
    ref_rejected_logprob: Tensor | None = None,
    *,
    loss_type: LossType = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    f_divergence: FDivergence = "reverse_kl",
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
) -> PreferenceLoss:
    """Loss and implicit rewards of B preference pairs.

    The formulas are those of the papers named beside each function of
    `suder_ext.reference.preference_formulas`, in TRL's conventions: log-probabilities are sums over
    a sequence; "sigmoid" is DPO (arXiv 2305.18290, eq. 7), with label_smoothing cDPO; "simpo" is
    `-log sigmoid(beta * (chosen / chosen_length - rejected / rejected_length) - margin)`
    (arXiv 2405.14734, eq. 6). Without ref_* the reference log-probabilities are 0; simpo, cpo and
    orpo have no reference and do not look at it.

    Args:
        chosen_logprob, rejected_logprob: float `[B]`, sums over each sequence.
        ref_chosen_logprob, ref_rejected_logprob: float `[B]` of the reference model, both or
            neither.
        loss_type: one of `suder_ext.types.LossType`.
        beta: above 0.
        label_smoothing: in `[0, 1)`; exo_pair needs it above 0, robust below 0.5.
        margin: subtracted inside the logistic, for the losses that have one.
        f_divergence: of f-DPO (arXiv 2309.16240), for the losses on score differences.
        chosen_length, rejected_length: int64 or int32 `[B]`, scored tokens of each sequence, needed
            by ipo, sigmoid_norm, simpo and orpo. Given to sft, cpo or orpo, the batch mean of their
            likelihood term is the mean over tokens, as in TRL.

    Returns:
        PreferenceLoss(loss `[B]`, chosen_reward `[B]`, rejected_reward `[B]`), float32 (float64 if
        an input is), each differentiable in the four log-probabilities. The rewards are
        `beta * (logprob - ref_logprob)`, for simpo and orpo `beta * logprob / length`. Loss i is
        that of pair i, also for aot and aot_unpaired, which compare pairs of equal rank.

    Raises:
        TypeError, ValueError: an argument that is not taken, or settings that make no loss.
    """
    tensors = (
        chosen_logprob,
        rejected_logprob,
        ref_chosen_logprob,
        ref_rejected_logprob,
        chosen_length,
        rejected_length,
    )
    direct = _are_plain(*tensors)
    if not direct:
        _check(*tensors)
    if not direct and not has_kernel("preference_loss", *tensors[:4]):
        return reference.preference_loss(
            chosen_logprob,
            rejected_logprob,
            ref_chosen_logprob,
            ref_rejected_logprob,
            loss_type=loss_type,
            beta=beta,
            label_smoothing=label_smoothing,
            margin=margin,
            f_divergence=f_divergence,
            chosen_length=chosen_length,
            rejected_length=rejected_length,
        )
    check_preference_options(
        loss_type,
        beta=beta,
        label_smoothing=label_smoothing,
        margin=margin,
        f_divergence=f_divergence,
        has_lengths=chosen_length is not None and rejected_length is not None,
        has_reference=(ref_chosen_logprob is not None, ref_rejected_logprob is not None),
    )
    options = loss_type, f_divergence, beta, label_smoothing, margin
    if direct:
        results = eager.call("preference_loss", *tensors, *options)
    else:
        logprobs = (None if t is None else t.float() for t in tensors[:4])
        lengths = (None if t is None else t.long() for t in tensors[4:])
        results = _ops.preference_loss(*logprobs, *lengths, *options)
    return PreferenceLoss(*results[:3])


def _are_plain(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor | None,
    ref_rejected: Tensor | None,
    chosen_length: Tensor | None,
    rejected_length: Tensor | None,
) -> bool:
    """Whether the CPU kernel can take the tensors as they are; then no `_check` can fail."""
    if not eager.ready("preference_loss"):
        return False
    ref = () if ref_chosen is None and ref_rejected is None else (ref_chosen, ref_rejected)
    pairs = eager.plain(1, eager.FLOAT32, chosen, rejected, *ref)
    return pairs is not None and (
        (chosen_length is None and rejected_length is None)
        or eager.plain(1, eager.INT64, chosen_length, rejected_length) == pairs
    )


def _check(
    chosen_logprob: Tensor,
    rejected_logprob: Tensor,
    ref_chosen_logprob: Tensor | None,
    ref_rejected_logprob: Tensor | None,
    chosen_length: Tensor | None,
    rejected_length: Tensor | None,
) -> None:
    _checks.tensor("chosen_logprob", chosen_logprob, 1, _checks.FLOATS)
    _checks.like("rejected_logprob", rejected_logprob, "chosen_logprob", chosen_logprob)
    if ref_chosen_logprob is not None:
        _checks.like("ref_chosen_logprob", ref_chosen_logprob, "chosen_logprob", chosen_logprob)
    if ref_rejected_logprob is not None:
        _checks.like("ref_rejected_logprob", ref_rejected_logprob, "chosen_logprob", chosen_logprob)
    if chosen_length is not None:
        _checks.length("chosen_length", chosen_length, "chosen_logprob", chosen_logprob)
    if rejected_length is not None:
        _checks.length("rejected_length", rejected_length, "chosen_logprob", chosen_logprob)


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
