"""log p(target) of each token, from hidden states or from logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from suder_ext import _checks, _ops, reference
from suder_ext._load import has_kernel
from suder_ext._ops import eager, kept_logits
from suder_ext.reference.logprobs import ranked
from suder_ext.types import LogprobStats, RankedStats

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# 24 MiB of float32 logits, kept on the CPU from a forward for its backward.
LOGITS_KEPT = 6 * 2**20


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """log p(target) under softmax of a linear head, without ever holding the `[tokens, V]` logits.

    The logits are `z = hidden @ weight.T + bias`, then, if a softcap is given,
    `z = softcap * tanh(z / softcap)` (Gemma 2, arXiv 2408.00118, section 2), then
    `z = z / temperature`; the result is `z[target] - logsumexp(z)`, never above 0. Products
    accumulate in float32 and no logit is rounded to 16 bits before a result is taken from it. Extra
    memory is a fixed workspace plus O(tokens), forward and backward; the backward computes the
    logits again, tile by tile, but for what the forward keeps for it: 24 MiB of them on the CPU,
    `set_workspace` on a GPU.

    Args:
        hidden: float32, bfloat16 or float16 `[..., D]`; float64 runs on the reference.
        weight: float `[V, D]`.
        target: an integer dtype, `[...]`, each in `[0, V)` or equal to `ignore_index`.
        bias: float `[V]`, or None.
        ignore_index: rows with this target give 0.0 and take no part in any gradient, whatever
            their hidden state holds.
        temperature: above 0.
        softcap: above 0, or None.
        group: a `torch.distributed` process group over whose ranks the head's rows are split, or
            None. Each rank gives its own rows of weight and bias, one after another in the order of
            the ranks, as many as it likes; hidden and target, of ids of the whole vocabulary, are
            the same on all of them, and so must the upstream gradients be. Every rank gets the
            results, and the gradient of hidden, in the same bits; the gradients of weight and bias
            are those of its rows. All ranks make the same calls in the same order, backward too.
            This is the convention of Megatron-LM's vocabulary-parallel cross entropy (arXiv
            1909.08053, section 3), with the ranges of rows taken from the shards' sizes. Under
            torch.compile it is a graph break; transforms are errors.

    Under `torch.autocast`, hidden, weight and bias are cast to the autocast dtype, as for
    `torch.nn.functional.linear`. Elsewhere dtypes may differ: what is narrower is widened, exactly,
    which takes a copy of it, and each gradient has the dtype of its own argument. Transforms of
    torch (torch.func, forward-mode AD, second derivatives) run on the reference, which holds all
    logits.

    Returns:
        float32 `[...]` (float64 if the inputs are), differentiable in hidden, weight and bias with
        any upstream gradient. A NaN or infinite input reaches the results of its own row only.

    Raises:
        TypeError: a dtype that is not taken; with a group, tensors of other classes.
        ValueError: a shape, device or setting that is not taken; with a group, on the CPU, a target
            or setting that is not the same on all ranks, raised on every one of them.
        NotImplementedError: a transform of torch, with a group.
        IndexError: a target that is neither in `[0, V)` nor `ignore_index`, naming the first such
            row of the flattened batch. Where nobody can look (CUDA, compiled or transformed code)
            that row's results are NaN.
    """
    if group is None and _is_plain_linear(hidden, weight, target, bias):
        _checks.scales(temperature, softcap)
        keep = room_for_logits(hidden, weight, bias, LOGITS_KEPT)
        settings = ignore_index, temperature, softcap, False, keep, False
        results: list[Tensor] = eager.call(
            "linear_logprob", hidden, weight, bias, target, *settings
        )
        return results[0]
    options = ignore_index, temperature, softcap
    arguments = hidden, weight, target, bias, *options
    return _linear_stats(*arguments, with_entropy=False, group=group)[0]


@overload
def linear_logprob_stats(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    group: ProcessGroup | None = None,
    argmax: Literal[False] = False,
) -> LogprobStats: ...
@overload
def linear_logprob_stats(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    group: ProcessGroup | None = None,
    argmax: Literal[True],
) -> RankedStats: ...
def linear_logprob_stats(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    group: ProcessGroup | None = None,
    argmax: bool = False,
) -> LogprobStats | RankedStats:
    """log p(target), log-sum-exp and entropy of a linear head's logits in one pass.

    Arguments, limits and errors are those of `linear_logprob`. `lse = logsumexp(z)` and
    `entropy = lse - sum_v p_v z_v` (nats) are of the final logits, after bias, softcap and
    temperature.

    Args:
        argmax: also which entry is the most likely, and whether it is the target: the token
            accuracy of teacher forcing. Of equal logits the first counts, so that a target that
            shares the maximum with an earlier entry is not first. On the CPU it is found in the
            same pass; on a GPU in a second one over the head, of logits before the softcap, which
            may make equal what was not.

    Returns:
        LogprobStats of three float32 `[...]`, each differentiable; rows with
        `target == ignore_index` give 0.0 in all three and no gradient. With argmax: RankedStats,
        the same three, int64 `[...]` and bool `[...]`.
    """
    if not argmax and group is None and _is_plain_linear(hidden, weight, target, bias):
        _checks.scales(temperature, softcap)
        keep = room_for_logits(hidden, weight, bias, LOGITS_KEPT)
        settings = ignore_index, temperature, softcap, True, keep, False
        results = eager.call("linear_logprob", hidden, weight, bias, target, *settings)
        return LogprobStats(*results[:3])
    options = ignore_index, temperature, softcap
    arguments = hidden, weight, target, bias, *options
    results = _linear_stats(*arguments, with_entropy=True, with_argmax=argmax, group=group)
    if argmax:
        return ranked(LogprobStats(*results[:3]), results[3], target, ignore_index)
    return LogprobStats(*results)


def logprob(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """log p(target) under softmax of given logits, without a second `[tokens, V]` tensor.

    The formula is that of `linear_logprob` with `z = logits`.

    Args:
        logits: float32, bfloat16 or float16 `[..., V]`, taken as they come (also under
            `torch.autocast`); float64 runs on the reference.
        target: an integer dtype, `[...]`, each in `[0, V)` or equal to `ignore_index`.
        ignore_index: rows with this target give 0.0 and no gradient, whatever their logits hold.
        temperature: above 0.
        softcap: above 0, or None.

    Returns:
        float32 `[...]` (float64 if the logits are), differentiable in logits.

    Raises:
        TypeError, ValueError, IndexError: as `linear_logprob`.
    """
    if _is_plain(logits, target):
        _checks.scales(temperature, softcap)
        options = ignore_index, temperature, softcap
        results: list[Tensor] = eager.call("logprob", logits, target, *options, False)
        return results[0]
    options = ignore_index, temperature, softcap
    return _stats(logits, target, *options, with_entropy=False)[0]


def logprob_stats(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> LogprobStats:
    """log p(target), log-sum-exp and entropy of given logits in one pass over them.

    Arguments and errors are those of `logprob`, results those of `linear_logprob_stats`.
    """
    if _is_plain(logits, target):
        _checks.scales(temperature, softcap)
        results = eager.call("logprob", logits, target, ignore_index, temperature, softcap, True)
        return LogprobStats(*results)
    options = ignore_index, temperature, softcap
    return LogprobStats(*_stats(logits, target, *options, with_entropy=True))


def linear_logprob_and_lse(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    *,
    ignore_index: int,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """log p(target) and log-sum-exp, without the pass over the logits that an entropy takes."""
    options = ignore_index, temperature, softcap
    logprob, lse = _linear_stats(hidden, weight, target, bias, *options, with_entropy=False)
    return logprob, lse


def logprob_and_lse(
    logits: Tensor, target: Tensor, *, ignore_index: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """The same from logits."""
    logprob, lse = _stats(logits, target, ignore_index, temperature, None, with_entropy=False)
    return logprob, lse


def _linear_stats(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    *,
    with_entropy: bool,
    with_argmax: bool = False,
    group: ProcessGroup | None = None,
) -> list[Tensor]:
    """log p, lse and, if wanted, entropy and arg max of any arguments that are taken."""
    hidden, weight, bias = _checks.linear(hidden, weight, target, bias, temperature, softcap)
    if group is not None:
        from suder_ext.functional import vocabulary_parallel

        rows, index = flattened(hidden, target)
        kernel = has_kernel("linear_logprob", hidden)
        keep = room_for_logits(rows, weight, bias, LOGITS_KEPT) if kernel else 0
        settings = ignore_index, temperature, softcap, with_entropy, keep, with_argmax
        options = vocabulary_parallel.Options(*settings)
        parts = vocabulary_parallel.linear_stats(rows, weight, bias, index, options, group)
        return [result.view(target.shape) for result in parts]
    if not has_kernel("linear_logprob", hidden):
        results = reference.linear_logprob_stats(
            hidden,
            weight,
            target,
            bias,
            ignore_index=ignore_index,
            temperature=temperature,
            softcap=softcap,
            argmax=with_argmax,
            entropy=with_entropy,
        )
        return [*results[: 2 + with_entropy], *results[3:4]]
    rows, index = flattened(hidden, target)
    keep = room_for_logits(rows, weight, bias, LOGITS_KEPT)
    settings = ignore_index, temperature, softcap, with_entropy, keep, with_argmax
    results = _ops.linear_logprob(rows, weight, bias, index, *settings)
    wanted = [*results[: 2 + with_entropy], *(results[4:] if with_argmax else ())]
    return wanted if target.dim() == 1 else [result.view(target.shape) for result in wanted]


def _stats(
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    *,
    with_entropy: bool,
) -> list[Tensor]:
    """The same from logits."""
    _checks.logits(logits, target, temperature, softcap)
    if not has_kernel("logprob", logits):
        results = reference.logprob_stats(
            logits,
            target,
            ignore_index=ignore_index,
            temperature=temperature,
            softcap=softcap,
            entropy=with_entropy,
        )
        return list(results[: 2 + with_entropy])
    rows, index = flattened(logits, target)
    results = _ops.logprob(rows, index, ignore_index, temperature, softcap, with_entropy)
    wanted = list(results[: 2 + with_entropy])
    return wanted if target.dim() == 1 else [result.view(target.shape) for result in wanted]


def room_for_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, most_on_cpu: int) -> int:
    """How many floats to keep for the backward: none where there will be no backward."""
    room = kept_logits.rooms.get(hidden.device.type)
    if room is None or not torch.is_grad_enabled():
        return 0
    if not any(t is not None and t.requires_grad for t in (hidden, weight, bias)):
        return 0
    return room(hidden, weight, most_on_cpu)


def _is_plain(logits: Tensor, target: Tensor) -> bool:
    """Whether a kernel can take the tensors as they are; then their check cannot fail."""
    return (
        eager.ready("logprob", logits, target)
        and (shape := eager.shape(2, eager.HEAD, logits)) is not None
        and eager.shape(1, eager.INT64, target) == shape[:1]
    )


def _is_plain_linear(hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None) -> bool:
    """The same for the tensors of the linear_* functions; autocast would cast them."""
    return (
        eager.ready("linear_logprob", hidden, weight, target, bias)
        and (rows := eager.shape(2, eager.HEAD, hidden)) is not None
        and (head := eager.shape(2, frozenset({hidden.dtype}), weight)) is not None
        and rows[1] == head[1]
        and eager.shape(1, eager.INT64, target) == rows[:1]
        and (bias is None or eager.shape(1, frozenset({hidden.dtype}), bias) == head[:1])
        and not torch.is_autocast_enabled("cuda" if hidden.is_cuda else "cpu")
    )


def flattened(values: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """values[..., C] as [N, C] and target[...] as int64 [N]; a view where the strides allow one."""
    if values.dim() != 2:
        values = values.reshape(target.numel(), values.shape[-1])
        target = target.reshape(-1)
    return values, target if target.dtype == torch.int64 else target.to(torch.int64)
