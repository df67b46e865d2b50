"""Preference losses from hidden states."""

from __future__ import annotations

from torch import Tensor

from suder_ext import _checks
from suder_ext.functional.logprobs import linear_logprob
from suder_ext.functional.pairs import losses_of, mean_loss_of, of_whole_pairs
from suder_ext.preference_options import TAKES_LENGTH, check_preference_options
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
            CUDA graph is captured it must be on the device.
        ref_logprob: float `[2P]`, the reference model's sums in the same order, or None; not taken
            by simpo, cpo and orpo.
        loss_type, beta, label_smoothing, margin, f_divergence: as in `preference_loss`.
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
        lengths={"cu_seqlens": loss_type in TAKES_LENGTH},
        reference={"ref_logprob": ref_logprob is not None},
    )
    _checks.tensor("target", target, 1, _checks.CLASSES)
    target = target.long()
    loss = loss_type, f_divergence, beta, label_smoothing, margin
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
        return losses_of(logprob, target, cu_seqlens, ref_logprob, ignore_index, loss)
    hidden, weight, bias = _checks.linear(hidden, weight, target, bias, temperature, softcap)
    softmax = ignore_index, temperature, softcap
    return mean_loss_of(
        hidden, weight, bias, target, cu_seqlens, offsets, ref_logprob, loss, softmax
    )


def _check(hidden: Tensor, cu_seqlens: Tensor, ref_logprob: Tensor | None) -> None:
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
        _checks.same_device("ref_logprob", ref_logprob, "hidden", hidden)
