"""Preference losses from hidden states."""

from __future__ import annotations

from torch import Tensor

from suder_ext import _checks
from suder_ext.functional.logprobs import linear_logprob
from suder_ext.functional.padded import packed
from suder_ext.functional.pairs import Weights, losses_of, mean_loss_of, of_whole_pairs
from suder_ext.preference_options import ALPHA, DISCOPOP_TAU, TAKES_LENGTH, check_preference_options
from suder_ext.reference.pair_weights import check_ld_alpha
from suder_ext.types import FDivergence, LossType, PairReduction, PreferenceLoss


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
    f_alpha: float = ALPHA,
    discopop_tau: float = DISCOPOP_TAU,
    likelihood_weight: float = 1.0,
    ld_alpha: float | None = None,
    pair_weight: Tensor | None = None,
    reduction: PairReduction = "none",
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> PreferenceLoss:
    """`preference_loss` from hidden states: the logits are never held, the gradients are exact.

    Sequences 2i and 2i+1 are the chosen and the rejected of pair i. The log-probabilities are sums
    over the scored tokens, and the lengths that some losses need are their counts. Extra memory is
    that of `linear_logprob`: a fixed workspace plus O(T).

    On a GPU the logits are computed once where `set_workspace` has room for what the forward keeps
    of them, 2 V bytes a token, and a second time where it has not.

    On the CPU reduction "mean" computes them once, not twice: the forward goes through the pairs in
    chunks and makes the gradients as well, which the backward multiplies by the one upstream
    gradient. They are float32 until then, whatever the dtype, so that a loss scale comes before the
    rounding; beside them there is a workspace of 256 MiB. Logits of a pair that does not fit there
    are computed twice, as are all where nothing is gained (few tokens) and where a loss ranks the
    whole batch and does not fit (aot, aot_unpaired).

    Args:
        hidden: `[T, D]`; weight, bias, ignore_index, temperature, softcap: as in `linear_logprob`.
        target: an integer dtype, `[T]`.
        cu_seqlens: int64 or int32 `[2P + 1]`, sorted from 0 to T, on the device of hidden. With
            reduction "mean" it may be on the CPU instead. It is copied without waiting; while a
            CUDA graph is captured it must be on the device. Or a mask `[2P, T]` of a padded batch,
            beside hidden `[2P, T, D]` and target `[2P, T]`: `pack_padded`.
        ref_logprob: float `[2P]`, the reference model's sums in the same order, or None; not taken
            by simpo, cpo and orpo.
        loss_type, beta, label_smoothing, margin, f_divergence: as in `preference_loss`.
        f_alpha, discopop_tau, likelihood_weight: as in `preference_loss`.
        ld_alpha: in [0, 1]; log p of a sequence's scored tokens beyond the length of its partner
            counts so much (LD-DPO, arXiv 2409.06411). ref_logprob must be made likewise.
        pair_weight: float `[P]`, times each loss, as WPO's (`wpo_weight`); a constant. With either
            of the two, reduction "mean" does not go in chunks.
        reduction: "none", or "mean": over the pairs both of whose sequences have a scored token.

    Returns:
        PreferenceLoss. With "none" three `[P]`, differentiable in hidden, weight and bias; a pair
        one of whose sequences has no scored token gives NaN and no gradient. With "mean" the loss
        is a scalar, NaN where no pair is left (also for P = 0, with gradients of 0); the rewards
        are the same `[P]`, for logging: they are not differentiable. Such a pair takes no part in
        another's loss or in a gradient, whatever its hidden states hold.

    Raises:
        TypeError, ValueError, IndexError: as `linear_sequence_logprob` and `preference_loss`.
    """
    cu_seqlens, hidden, target = packed(cu_seqlens, hidden=hidden, target=target)
    _checks.choice("reduction", reduction, ("none", "mean"))
    offsets = cu_seqlens
    if reduction == "mean" and isinstance(cu_seqlens, Tensor) and cu_seqlens.device.type == "cpu":
        cu_seqlens = cu_seqlens.to(hidden.device, non_blocking=True)
    _check(hidden, cu_seqlens, ref_logprob)
    check_preference_options(
        loss_type,
        beta=beta,
        label_smoothing=label_smoothing,
        margin=margin,
        f_divergence=f_divergence,
        f_alpha=f_alpha,
        discopop_tau=discopop_tau,
        likelihood_weight=likelihood_weight,
        lengths={"cu_seqlens": loss_type in TAKES_LENGTH},
        reference={"ref_logprob": ref_logprob is not None},
    )
    check_ld_alpha(ld_alpha)
    _checks.pair_weight(pair_weight, "hidden", hidden, (cu_seqlens.shape[0] - 1) // 2)
    _checks.tensor("target", target, 1, _checks.CLASSES)
    target = target.long()
    numbers = beta, label_smoothing, margin, f_alpha, discopop_tau, likelihood_weight
    loss = loss_type, f_divergence, *numbers
    weights = Weights(ld_alpha, pair_weight)
    if reduction == "none":
        logprob = linear_logprob(
            hidden,
            weight,
            of_whole_pairs(target, cu_seqlens, ignore_index)[0],
            bias,
            ignore_index=ignore_index,
            temperature=temperature,
            softcap=softcap,
        )
        return losses_of(logprob, target, cu_seqlens, ref_logprob, ignore_index, loss, weights)
    hidden, weight, bias = _checks.linear(hidden, weight, target, bias, temperature, softcap)
    softmax = ignore_index, temperature, softcap
    return mean_loss_of(
        hidden, weight, bias, target, cu_seqlens, offsets, ref_logprob, loss, softmax, weights
    )


def _check(hidden: Tensor, cu_seqlens: Tensor, ref_logprob: Tensor | None) -> None:
    _checks.cu_seqlens(cu_seqlens, "hidden", hidden)
    _checks.pairs(cu_seqlens)
    if ref_logprob is not None:
        _checks.tensor("ref_logprob", ref_logprob, 1, _checks.FLOATS)
        _checks.shape(
            "ref_logprob", ref_logprob, (cu_seqlens.shape[0] - 1,), "the 2P of cu_seqlens[2P+1]"
        )
        _checks.same_device("ref_logprob", ref_logprob, "hidden", hidden)
