"""Preference losses from hidden states."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext import _checks, _ops
from suder_ext._load import has_kernel
from suder_ext._ops import pair_chunks
from suder_ext.functional import logprobs
from suder_ext.functional.preference import preference_loss
from suder_ext.functional.sequences import sequence_reduce
from suder_ext.preference_options import check_preference_options
from suder_ext.types import FDivergence, LossType, PairReduction, PreferenceLoss

# So many tokens' logits computed again on the CPU cost less than float32 sums of the weight's
# gradient, which are memory to clear, to read and to round (benchmarks/README.md).
FEW_TOKENS = 384


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

    With reduction "mean" the logits are computed once, not twice: the forward goes through the
    pairs in chunks and makes the gradients as well, which the backward multiplies by the one
    upstream gradient. They are float32 until then, whatever the dtype, so that a loss scale comes
    before the rounding; beside them there is a workspace of 256 MiB on the CPU and 512 MiB on CUDA.
    Logits of a pair that does not fit there are computed twice, as are all where nothing is gained
    (few tokens on the CPU), where a loss ranks the whole batch and does not fit (aot,
    aot_unpaired), and on CUDA unless cu_seqlens is on the CPU.

    Args:
        hidden: `[T, D]`; weight, bias, ignore_index, temperature, softcap: as in `linear_logprob`.
        target: int64 or int32 `[T]`.
        cu_seqlens: int64 or int32 `[2P + 1]`, sorted from 0 to T, on the device of hidden. With
            reduction "mean" it may be on the CPU instead: only there are the ends of the pairs
            known without waiting for the device. It is copied to the device without waiting.
        ref_logprob: float `[2P]`, the reference model's sums in the same order, or None.
        loss_type, beta, label_smoothing, margin, f_divergence: as in `preference_loss`.
        reduction: "none", or "mean": over the pairs both of whose sequences have a scored token.

    Returns:
        PreferenceLoss. With "none" three `[P]`, differentiable in hidden, weight and bias; a pair
        one of whose sequences has no scored token gives NaN and no gradient. With "mean" the loss
        is a scalar, NaN where no pair is left (also for P = 0, with gradients of 0); the rewards
        are the same `[P]`, for logging: they are not differentiable. Such a pair takes no part in
        the loss, whatever its hidden states hold.

    Raises:
        TypeError, ValueError, IndexError: as `linear_sequence_logprob` and `preference_loss`.
    """
    _checks.choice("reduction", reduction, ("none", "mean"))
    offsets = cu_seqlens
    if reduction == "mean" and isinstance(cu_seqlens, Tensor) and cu_seqlens.device.type == "cpu":
        cu_seqlens = cu_seqlens.to(hidden.device, non_blocking=True)
    _check(hidden, cu_seqlens, ref_logprob)
    loss = loss_type, f_divergence, beta, label_smoothing, margin
    if reduction == "none":
        per_token = logprobs.linear_logprob(
            hidden,
            weight,
            target,
            bias,
            ignore_index=ignore_index,
            temperature=temperature,
            softcap=softcap,
        )
        return _of_pairs(per_token, target, cu_seqlens, ref_logprob, ignore_index, loss)
    _checks.tensor("target", target, 1, _checks.INTS)
    hidden, weight, bias = _checks.linear(hidden, weight, target, bias, temperature, softcap)
    check_preference_options(
        loss_type,
        beta=beta,
        label_smoothing=label_smoothing,
        margin=margin,
        f_divergence=f_divergence,
        has_lengths=True,
        has_reference=(ref_logprob is not None,) * 2,
    )
    softmax = ignore_index, temperature, softcap
    ref_logprob = None if ref_logprob is None else ref_logprob.detach()
    scored, count = _of_whole_pairs(target, cu_seqlens, ignore_index)
    if _goes_in_chunks(hidden, weight, bias, ref_logprob, offsets):
        results = _ops.linear_preference_loss(
            hidden,
            weight,
            bias,
            scored.long(),
            offsets.long(),
            count,
            None if ref_logprob is None else ref_logprob.float().contiguous(),
            *loss,
            *softmax,
            *(t is not None and t.requires_grad for t in (hidden, weight, bias)),
        )
        return PreferenceLoss(*results[:3])
    per_token = _logprob_with_room(hidden, weight, scored, bias, softmax)
    result = _of_pairs(per_token, target, cu_seqlens, ref_logprob, ignore_index, loss)
    ends = torch.arange(2, device=hidden.device) * result.loss.shape[0]
    missing = _missing(count).long()
    mean, _ = sequence_reduce(result.loss, missing, ends, mean=True, ignore_index=1)
    return PreferenceLoss(mean[0], *(reward.detach() for reward in result[1:]))


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


def _missing(count: Tensor) -> Tensor:
    """Whether one of a pair's sequences has no scored token, bool `[P]`."""
    return (count == 0).view(-1, 2).any(1)


def _of_whole_pairs(target: Tensor, cu_seqlens: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The targets, those of pairs that are left out ignored; the scored tokens of each sequence."""
    nothing = torch.zeros(target.shape, dtype=torch.float32, device=target.device)
    _, count = sequence_reduce(nothing, target, cu_seqlens, mean=False, ignore_index=ignore_index)
    token = torch.arange(target.shape[0], device=target.device)
    sequence = torch.bucketize(token, cu_seqlens[1:].long(), right=True)
    missing = _missing(count)
    pair = (sequence // 2).clamp(max=missing.shape[0] - 1)  # wrong offsets read nothing elsewhere
    return target.masked_fill(missing[pair], ignore_index), count


def _goes_in_chunks(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ref_logprob: Tensor | None,
    offsets: Tensor,
) -> bool:
    """Whether a gradient is wanted, can be made in chunks, and is cheaper so."""
    if not torch.is_grad_enabled() or offsets.device.type != "cpu":
        return False
    if not any(t is not None and t.requires_grad for t in (hidden, weight, bias)):
        return False
    if not has_kernel("linear_logprob", hidden, weight, ref_logprob):
        return False
    if hidden.device.type != "cpu":
        return True
    few_tokens = FEW_TOKENS if weight.requires_grad else 0
    return (hidden.shape[0] - few_tokens) * weight.shape[0] > pair_chunks.CPU_WORKSPACE


def _logprob_with_room(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    softmax: tuple[int, float, float | None],
) -> Tensor:
    """linear_logprob, which on the CPU keeps as many logits as chunks would."""
    wanted = any(t is not None and t.requires_grad for t in (hidden, weight, bias))
    if not has_kernel("linear_logprob", hidden) or hidden.device.type != "cpu":
        wanted = False
    if not wanted or not torch.is_grad_enabled():
        ignore_index, temperature, softcap = softmax
        return logprobs.linear_logprob(
            hidden,
            weight,
            target,
            bias,
            ignore_index=ignore_index,
            temperature=temperature,
            softcap=softcap,
        )
    keep = pair_chunks.cpu_room(hidden.shape[0], weight.shape[0])
    return _ops.linear_logprob(hidden, weight, bias, target.long(), *softmax, False, keep)[0]


def _of_pairs(
    per_token: Tensor,
    target: Tensor,
    cu_seqlens: Tensor,
    ref_logprob: Tensor | None,
    ignore_index: int,
    loss: tuple[LossType, FDivergence, float, float, float],
) -> PreferenceLoss:
    """The losses of all pairs, from log p of their tokens."""
    total, count = sequence_reduce(
        per_token, target, cu_seqlens, mean=False, ignore_index=ignore_index
    )
    # The NaN of a sequence without tokens goes around the loss: a pair that is left out of the mean
    # (upstream gradient 0) must not turn its partner's gradient into 0 * NaN.
    total = total.masked_fill(count == 0, 0.0)
    loss_type, f_divergence, beta, label_smoothing, margin = loss
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
    missing = _missing(count)
    return PreferenceLoss(*(value.masked_fill(missing, torch.nan) for value in result))
