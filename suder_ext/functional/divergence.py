"""The divergence of one linear head's distribution from another's, over the whole vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext import _checks, reference
from suder_ext.functional.sequences import check_packed, reduced
from suder_ext.types import SequenceReduction

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
    ref_head = _checks.linear(ref_hidden, ref_weight, target, ref_bias, names=REFERENCE)
    if weight.shape[0] != ref_weight.shape[0]:
        raise ValueError(
            f"ref_weight takes shape [V, D2] with the V of weight[V, D], "
            f"got {list(ref_weight.shape)} and {list(weight.shape)}"
        )
    if cu_seqlens is not None:
        check_packed("hidden", hidden, target, cu_seqlens)
    kl = reference.linear_kl(
        *head[:2],
        *ref_head[:2],
        head[2],
        ref_head[2],
        target,
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap,
    )
    if cu_seqlens is None:
        return kl
    return reduced(kl, target, cu_seqlens, reduction == "mean", ignore_index)[0]
