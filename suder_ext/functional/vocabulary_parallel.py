"""The linear head split by rows over the processes of a group; imported when a group is given.

Each rank goes through its own rows; the log-sum-exp of the whole is merged from theirs in the order
of the ranks (_ops/head_shards.py), and under it each rank makes the gradients of its rows. Per
token and rank, 32 bytes are told forward and one float32 hidden state's worth backward. The split
is that of Megatron-LM's vocabulary-parallel cross entropy (arXiv 1909.08053, section 3).
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from suder_ext import _transforms
from suder_ext._load import has_kernel
from suder_ext._ops import by_reference, eager
from suder_ext._ops.collectives import gathered, summed
from suder_ext._ops.head_shards import IGNORED, Head, Shard, merge, shards
from suder_ext.reference.head_shard import ReferenceShard
from suder_ext.reference.logprobs import wrong_targets


class Options(NamedTuple):
    """What the functions take, beside tensors."""

    ignore_index: int
    temperature: float
    softcap: float | None
    with_entropy: bool
    keep_logits: int
    with_argmax: bool


def linear_stats(*arguments: Any) -> list[Tensor]:
    """See `_linear_stats`, which no compiler may look into."""
    if torch.compiler.is_compiling():  # not a decorator: it would load the compiler for everyone
        torch._dynamo.graph_break("group: what processes tell each other is no part of a graph")
        stats: list[Tensor] = torch.compiler.disable(_linear_stats)(*arguments)
        return stats
    return _linear_stats(*arguments)


def _linear_stats(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    options: Options,
    group: dist.ProcessGroup,
) -> list[Tensor]:
    """log p, lse and, if wanted, entropy and arg max `[T]`, of hidden `[T, D]` and own rows."""
    _takes(group, hidden, weight, bias, target)
    target, first, inside, wrong = _in_this_shard(hidden, weight, target, options, group)
    shard = _shard(hidden)
    apply: Any = _Sharded.apply
    places = first, inside, wrong
    return list(apply(hidden, weight, bias, target, *places, shard, options, group))


def _shard(hidden: Tensor) -> Shard:
    known = has_kernel("linear_logprob", hidden) and hidden.device.type in shards
    return shards[hidden.device.type] if known else ReferenceShard()


def _takes(group: object, *tensors: Tensor | None) -> None:
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError(
            "group takes a process group of torch.distributed that this process is in, "
            f"got {type(group).__name__}"
        )
    if _transforms.active():
        raise NotImplementedError(
            "group takes no transform of torch (torch.func, forward-mode AD): "
            "gather the head's rows and leave group out"
        )
    if not eager.readable(tensors):
        kinds = ", ".join(sorted({type(t).__name__ for t in tensors if t is not None}))
        raise TypeError(
            f"group takes plain tensors on the CPU or a GPU, got {kinds}; of a DTensor, give its "
            "to_local()"
        )


def _in_this_shard(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    options: Options,
    group: dist.ProcessGroup,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Targets as rows of this shard (any row where it is another's), how many rows are before it,
    which targets are its own, which are none's.

    Where values may be looked at, ranks that were given different things say so together.
    """
    told = {"rows": weight.shape[0]}
    if _transforms.values_are_known(target):
        told |= _same_on_all(hidden, target, options)
        ranks = gathered(torch.tensor(list(told.values())), group)
        for name, values in list(zip(told, ranks.T.tolist(), strict=True))[1:]:
            odd = [rank for rank, value in enumerate(values) if value != values[0]]
            if odd:
                raise ValueError(
                    f"group takes the same hidden, target and settings on every rank; the {name} "
                    f"of rank {odd[0]} is not that of rank 0"
                )
    else:
        ranks = gathered(target.new_full((1,), weight.shape[0]), group)
    ignored = target == options.ignore_index
    rows = ranks[:, 0]
    wrong = wrong_targets(target, rows.sum(), ignored)
    first = rows[: dist.get_rank(group)].sum()
    own = target - first
    inside = (own >= 0) & (own < weight.shape[0]) & ~ignored
    return own.masked_fill(~inside, 0).masked_fill(ignored, IGNORED), first, inside, wrong


def _same_on_all(hidden: Tensor, target: Tensor, options: Options) -> dict[str, int]:
    """Numbers that differ where ranks were given different arguments, by name."""
    settings = repr((str(hidden.dtype), *options[:4], options.with_argmax))
    place = torch.arange(1, target.shape[0] + 1)
    return {
        "number of tokens": hidden.shape[0],
        "width of hidden": hidden.shape[1],
        "dtype, function or settings": zlib.crc32(settings.encode()),
        "need of a gradient of hidden": torch.is_grad_enabled() and hidden.requires_grad,
        "target": int((target * place).sum()),
    }


class _Sharded(torch.autograd.Function):
    """The whole vocabulary's results from every rank's part, and this rank's gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        first: Tensor,
        inside: Tensor,
        wrong: Tensor,
        shard: Shard,
        options: Options,
        group: dist.ProcessGroup,
    ) -> tuple[Tensor, ...]:
        head = Head(hidden, weight, bias, target, options.temperature, options.softcap)
        wanted = options.with_entropy, options.keep_logits, options.with_argmax
        part, kept, argmax = shard.forward(head, *wanted)
        part[:, 3].masked_fill_(~inside, 0.0)
        if options.with_argmax:  # a double holds any row's number
            part = torch.cat([part, (argmax + first).double()[:, None]], dim=1)
        parts = gathered(part, group)
        whole = merge(parts)
        ignored = target == IGNORED
        logprob = whole.logprob(parts[..., 3].sum(0)).masked_fill(wrong, torch.nan)
        results = [logprob, whole.lse()]
        if options.with_entropy:
            results.append(whole.entropy())
        dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        results = [result.masked_fill(ignored, 0.0).to(dtype) for result in results]
        ctx.set_materialize_grads(False)
        if options.with_argmax:  # of the first rank with the largest logit
            rank = (parts[..., 0] == whole.highest).byte().argmax(0, keepdim=True)
            place = parts[..., 4].gather(0, rank)[0].long().masked_fill(ignored, 0)
            ctx.mark_non_differentiable(place)
        ctx.shard, ctx.options, ctx.group = shard, options, group
        ctx.save_for_backward(hidden, weight, bias, target, inside, kept, *results[1:])
        return *results, *((place,) if options.with_argmax else ())

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        if by_reference.wanted() or not eager.readable(upstream):
            raise RuntimeError(
                "group has no second derivatives and no transforms of its backward "
                "(create_graph=True, is_grads_batched=True)"
            )
        hidden, weight, bias, target, inside, kept, lse, *rest = ctx.saved_tensors
        of_logprob, of_lse, *of_entropy = upstream[: 2 + ctx.options.with_entropy]
        if of_logprob is not None:
            # -p of the logits here; 1 at the target, where that is here.
            elsewhere = of_logprob.masked_fill(inside, 0.0)
            of_lse = -elsewhere if of_lse is None else of_lse - elsewhere
            of_logprob = of_logprob.masked_fill(~inside, 0.0)
        grads = of_logprob, of_lse, of_entropy[0] if of_entropy else None
        head = Head(hidden, weight, bias, target, ctx.options.temperature, ctx.options.softcap)
        need = ctx.needs_input_grad
        entropy = rest[0] if rest else lse.new_zeros(0)
        d_hidden, d_weight, d_bias = ctx.shard.backward(head, grads, lse, entropy, kept, need[:3])
        return (
            summed(d_hidden, hidden.dtype, ctx.group) if need[0] else None,
            d_weight if need[1] else None,
            d_bias if need[2] else None,
            *(None,) * 7,
        )
