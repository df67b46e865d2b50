"""The divergence of one linear head's distribution from another's, over the whole vocabulary."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from suder_ext import _checks, _ops, reference
from suder_ext._load import has_kernel
from suder_ext._ops import eager, kept_logits
from suder_ext.functional.logprobs import LOGITS_KEPT, flattened
from suder_ext.functional.sequences import check_packed, reduced
from suder_ext.types import SequenceReduction

Head = tuple[Tensor, Tensor, Tensor | None]
REFERENCE = ("ref_hidden", "ref_weight", "ref_bias")


def linear_kl(
    hidden: Tensor,
    weight: Tensor,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    bias: Tensor | None = None,
    ref_bias: Tensor | None = None,
    target: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    *,
    reduction: SequenceReduction = "mean",
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """KL(policy || reference) at each position, exact: `sum_v p_v (log p_v - log q_v)`.

    p is the softmax of `hidden @ weight.T + bias` and q that of the reference's, both after softcap
    and temperature as in `linear_logprob`; the sum is over the whole vocabulary. It is what the
    k1, k2 and k3 estimators of a sampled token (http://joschu.net/blog/kl-approx.html) estimate:
    never negative, without a variance of its own, and with gradients that are bounded as long as
    the log-probabilities are: `p_v (log p_v - log q_v - KL)` by a logit of the policy and
    `q_v - p_v` by one of the reference.

    Args:
        hidden: float32, bfloat16 or float16 `[..., D]`, the policy's; float64 runs on the
            PyTorch reference.
        weight: float `[V, D]`.
        ref_hidden: float `[..., D2]`, of the same positions; D2 may be another width.
        ref_weight: float `[V, D2]`, of the same vocabulary.
        bias, ref_bias: float `[V]`, or None.
        target: an integer dtype, `[...]`, or None. It says which positions count and nothing else:
            those where it is `ignore_index` give 0.0 and take no part in any gradient, whatever
            their hidden states hold.
        cu_seqlens: int64 or int32 `[B + 1]`, sorted from 0 to T, or None; hidden is `[T, D]` then.
        reduction: "mean" or "sum" over the positions of a sequence that count; of cu_seqlens only.
        ignore_index, temperature, softcap: as in `linear_logprob`, the last two of both sides.

    Dtypes may differ, also between the sides: what is narrower is widened, exactly, which takes a
    copy of it. `torch.autocast` and transforms of torch are as for `linear_logprob`.

    Returns:
        float32 `[...]`, or with cu_seqlens `[B]` (float64 if any input is), differentiable in every
        floating input, with any upstream gradient; what needs none costs nothing. A sequence of
        which no position counts gives NaN and no gradient. Rounding leaves about 1e-7 of the
        differences of logits, and what it leaves below 0 is 0.

        Logits of -inf (a bias of -inf masks an entry): where p is 0 the term is 0, whatever q is;
        where only q is 0 the divergence is inf and the gradients of that position are not finite.
        A NaN or +inf input reaches the results of its own position only.

    Raises:
        TypeError: a dtype that is not taken.
        ValueError: a shape, device, setting or cu_seqlens that is not taken.
    """
    _checks.choice("reduction", reduction, ("mean", "sum"))
    _checks.tensor("hidden", hidden, -1, _checks.FLOATS)
    if target is None:
        target = torch.zeros(hidden.shape[:-1], dtype=torch.int64, device=hidden.device)
        ignore_index = -100
    head = _checks.linear(hidden, weight, target, bias, temperature, softcap)
    _checks.tensor("ref_hidden", ref_hidden, -1, _checks.FLOATS)
    _checks.same_device("ref_hidden", ref_hidden, "hidden", hidden)
    if ref_hidden.shape[:-1] != hidden.shape[:-1]:
        raise ValueError(
            f"ref_hidden takes shape [..., D2] with the positions of hidden[..., D], "
            f"got {list(ref_hidden.shape)} and {list(hidden.shape)}"
        )
    _checks.tensor("ref_weight", ref_weight, 2, _checks.FLOATS)
    if weight.shape[0] != ref_weight.shape[0]:
        raise ValueError(
            f"ref_weight takes shape [V, D2] with the V of weight[V, D], "
            f"got {list(ref_weight.shape)} and {list(weight.shape)}"
        )
    ref_head = _checks.linear(ref_hidden, ref_weight, target, ref_bias, names=REFERENCE)
    if cu_seqlens is not None:
        check_packed("hidden", hidden, target, cu_seqlens)
    options = ignore_index, temperature, softcap
    kl = _per_position(head, ref_head, target, options)
    if cu_seqlens is None:
        return kl
    return reduced(kl, target, cu_seqlens, reduction == "mean", ignore_index)[0]


def _per_position(
    head: Head, ref_head: Head, target: Tensor, options: tuple[int, float, float | None]
) -> Tensor:
    """The divergence of any arguments that are taken, in one dtype."""
    hidden, weight, bias, ref_hidden, ref_weight, ref_bias = _in_one_dtype(*head, *ref_head)
    assert hidden is not None
    assert weight is not None
    assert ref_hidden is not None
    assert ref_weight is not None
    if not has_kernel("linear_kl", hidden):
        ignore_index, temperature, softcap = options
        return reference.linear_kl(
            hidden,
            weight,
            ref_hidden,
            ref_weight,
            bias,
            ref_bias,
            target,
            ignore_index=ignore_index,
            temperature=temperature,
            softcap=softcap,
        )
    rows, index = flattened(hidden, target)
    ref_rows, _ = flattened(ref_hidden, target)
    sides = rows, weight, bias, ref_rows, ref_weight, ref_bias
    keep = _room_for_logits(*sides)
    if eager.ready("linear_kl", *sides, index):
        kl: Tensor = eager.call("linear_kl", *sides, index, *options, keep)[0]
    else:
        kl = _ops.linear_kl(*sides, index, *options, keep)[0]
    return kl if target.dim() == 1 else kl.view(target.shape)


def _in_one_dtype(*tensors: Tensor | None) -> list[Tensor | None]:
    """The narrowest that holds all of them exactly."""
    dtype = functools.reduce(torch.promote_types, [t.dtype for t in tensors if t is not None])
    return [None if t is None else t.to(dtype) for t in tensors]


def _room_for_logits(*tensors: Tensor | None) -> int:
    """How many floats of each side to keep for a backward: on the CPU, if there will be one."""
    hidden, weight = tensors[:2]
    assert hidden is not None
    assert weight is not None
    if hidden.device.type != "cpu" or not torch.is_grad_enabled():
        return 0
    if not any(t is not None and t.requires_grad for t in tensors):
        return 0
    return kept_logits.room(hidden.shape[0], weight.shape[0], LOGITS_KEPT // 2)
