"""Preference losses on pairs of sequences."""

from __future__ import annotations

from torch import Tensor

from suder_ext import _checks, _ops, reference
from suder_ext._load import has_kernel
from suder_ext._ops import eager
from suder_ext.preference_options import ALPHA, DISCOPOP_TAU, check_preference_options
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
    f_alpha: float = ALPHA,
    discopop_tau: float = DISCOPOP_TAU,
    likelihood_weight: float = 1.0,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    pair_weight: Tensor | None = None,
) -> PreferenceLoss:
    """Loss and implicit rewards of B preference pairs.

    The formulas are those of the papers named beside each function of
    `suder_ext.reference.preference_formulas`, in TRL's conventions: log-probabilities are sums over
    a sequence; "sigmoid" is DPO (arXiv 2305.18290, eq. 7), with label_smoothing cDPO; "simpo" is
    `-log sigmoid(beta * (chosen / chosen_length - rejected / rejected_length) - margin)`
    (arXiv 2405.14734, eq. 6). Without ref_* the reference log-probabilities are 0. An argument that
    the loss does not use must be left at its default.

    Args:
        chosen_logprob, rejected_logprob: float `[B]`, sums over each sequence.
        ref_chosen_logprob, ref_rejected_logprob: float `[B]` of the reference model, both or
            neither; not taken by simpo, cpo and orpo, which have no reference.
        loss_type: one of `suder_ext.types.LossType`.
        beta: above 0.
        label_smoothing: in `[0, 1)`, for sigmoid, sigmoid_norm, exo_pair (which needs it above 0),
            robust (below 0.5), aot, aot_unpaired, simpo and cpo.
        margin: subtracted inside the loss of sigmoid, sigmoid_norm, hinge, exo_pair, robust,
            discopop, simpo and cpo.
        f_divergence: of f-DPO (arXiv 2309.16240), for the losses on score differences: sigmoid,
            sigmoid_norm, hinge, ipo, exo_pair, robust and discopop. Its exponents stop at 88.
        f_alpha: the order of "alpha_divergence", 1 being its limit, the reverse KL.
        discopop_tau: above 0, the temperature of discopop's blend (arXiv 2406.08414, eq. 5).
        likelihood_weight: at least 0, of the likelihood term of cpo (TRL's cpo_alpha) and of orpo.
        chosen_length, rejected_length: int64 or int32 `[B]`, scored tokens of each sequence, both
            or neither; an empty sequence counts as one token. Needed by ipo, sigmoid_norm, simpo
            and orpo, which average over tokens. Given to sft, cpo or orpo, the mean of their
            likelihood term over the pairs without an empty sequence is the mean over these pairs'
            tokens, as in TRL. Given to aot or aot_unpaired, pairs with an empty sequence take no
            rank among the others.
        pair_weight: float `[B]`, times each loss, as WPO's (`wpo_weight`).

    Returns:
        PreferenceLoss(loss `[B]`, chosen_reward `[B]`, rejected_reward `[B]`), float32 (float64 if
        an input is), each differentiable in the four log-probabilities, the loss in pair_weight.
        The rewards are `beta * (logprob - ref_logprob)`, for simpo and orpo
        `beta * logprob / length`. Loss i is that of pair i, also for aot and aot_unpaired, which
        compare pairs of equal rank.

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
    _checks.pair_weight(pair_weight, "chosen_logprob", chosen_logprob, chosen_logprob.shape[0])
    if not direct and not has_kernel("preference_loss", *tensors[:4], pair_weight):
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
            f_alpha=f_alpha,
            discopop_tau=discopop_tau,
            likelihood_weight=likelihood_weight,
            chosen_length=chosen_length,
            rejected_length=rejected_length,
            pair_weight=pair_weight,
        )
    check_preference_options(
        loss_type,
        beta=beta,
        label_smoothing=label_smoothing,
        margin=margin,
        f_divergence=f_divergence,
        f_alpha=f_alpha,
        discopop_tau=discopop_tau,
        likelihood_weight=likelihood_weight,
        lengths={
            "chosen_length": chosen_length is not None,
            "rejected_length": rejected_length is not None,
        },
        reference={
            "ref_chosen_logprob": ref_chosen_logprob is not None,
            "ref_rejected_logprob": ref_rejected_logprob is not None,
        },
    )
    options = (
        *(loss_type, f_divergence, beta, label_smoothing, margin),
        *(f_alpha, discopop_tau, likelihood_weight),
    )
    if direct:
        results = eager.call("preference_loss", *tensors, *options)
    else:
        logprobs = (None if t is None else t.float() for t in tensors[:4])
        lengths = (None if t is None else t.long() for t in tensors[4:])
        results = _ops.preference_loss(*logprobs, *lengths, *options)
    if pair_weight is not None:
        return PreferenceLoss(results[0] * pair_weight.float(), *results[1:3])
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
    tensors = chosen, rejected, ref_chosen, ref_rejected, chosen_length, rejected_length
    if not eager.ready("preference_loss", *tensors):
        return False
    if ref_chosen is None and ref_rejected is None:
        pairs = eager.shape(1, eager.FLOAT32, chosen, rejected)
    else:
        pairs = eager.shape(1, eager.FLOAT32, chosen, rejected, ref_chosen, ref_rejected)
    if chosen_length is None and rejected_length is None:
        return pairs is not None
    return pairs is not None and pairs == eager.shape(
        1, eager.INT64, chosen_length, rejected_length
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
