"""One process of a group: runs the cases of vocabulary_cases.py, leaves what it got in a file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import suder_ext
from tests.ops.backends import use_backend
from tests.ops.cases import gradients
from tests.ops.vocabulary_cases import RUNS, SPLITS, Split

RANKS = 3
CU = torch.tensor([0, 4, 9, 9, 19])  # a sequence of no token
Groups = dict[int, dist.ProcessGroup]


def run(rank: int, folder: str) -> None:
    """Process `rank` of RANKS. The first two are a group, the last is one, all are one."""
    torch.set_num_threads(1)
    where = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=RANKS)
    groups: Groups = {1: dist.new_group([2]), 2: dist.new_group([0, 1]), 3: dist.group.WORLD}
    results: dict[str, Any] = {}
    for backend, name in RUNS:
        if rank < len(SPLITS[name].sizes):
            with use_backend(backend):
                results[f"{backend}/{name}"] = both(SPLITS[name], rank, groups)
                results[f"{backend}/{name} first"] = first(SPLITS[name], rank, groups)
    size = 2 if rank < 2 else 1
    for check in CHECKS[size]:
        results[check.__name__] = check(rank, groups[size])
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def both(split: Split, rank: int, groups: Groups) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    group = groups[len(split.sizes)]
    function = functools.partial(suder_ext.linear_logprob_stats, group=group)
    return gradients(split.shard(rank), function, split.upstream())


def first(split: Split, rank: int, groups: Groups) -> dict[str, Tensor]:
    group = groups[len(split.sizes)]
    function = functools.partial(suder_ext.linear_logprob_stats, group=group, argmax=True)
    return dict(split.shard(rank).run(function)._asdict())


def error(function: Callable[[], object]) -> str:
    """What kind it is, and what it says; "" for none."""
    try:
        function()
    except Exception as caught:
        return f"{type(caught).__name__}: {caught}"
    return ""


def sequences(rank: int, group: dist.ProcessGroup) -> list[Any]:
    """The functions that stand on linear_logprob."""
    shard = SPLITS["torch.bfloat16"].shard(rank)
    arguments = *shard.floats.values(), shard.target, CU
    hidden, weight, bias, target, cu = arguments
    return [
        suder_ext.linear_logprob(hidden, weight, target, bias, group=group),
        suder_ext.linear_sequence_logprob(hidden, weight, target, cu, bias, group=group),
        *suder_ext.dual_reward(hidden, weight, target, cu, bias, group_size=2, group=group),
    ]


def same_bits(rank: int, group: dist.ProcessGroup) -> list[bool]:
    """Again, with two threads, and as half of a batch."""
    split = SPLITS["tiles"]
    function = functools.partial(suder_ext.linear_logprob_stats, group=group)
    once, grads = gradients(split.shard(rank), function, split.upstream())
    torch.set_num_threads(2)
    again, grads_again = gradients(split.shard(rank), function, split.upstream())
    torch.set_num_threads(1)
    shard = split.shard(rank)
    floats = {**shard.floats, "hidden": shard.floats["hidden"][60:]}
    half = replace(shard, floats=floats, target=shard.target[60:]).run(function)
    return [
        *(torch.equal(once[name], again[name]) for name in once),
        *(torch.equal(grads[name], grads_again[name]) for name in grads),
        *(torch.equal(once[name][60:], part) for name, part in half._asdict().items()),
    ]


def autograd(rank: int, group: dist.ProcessGroup) -> dict[str, Any]:
    """Backward twice, of a sum, and of the head alone."""
    shard = SPLITS["torch.float32"].shard(rank)
    function = functools.partial(suder_ext.linear_logprob, group=group)
    leaves = {name: t.clone().requires_grad_() for name, t in shard.floats.items()}
    total = replace(shard, floats=leaves).run(function).sum()
    first = torch.autograd.grad(total, list(leaves.values()), retain_graph=True)
    second = torch.autograd.grad(total, list(leaves.values()))
    frozen = {**leaves, "hidden": leaves["hidden"].detach()}
    head = [leaves["weight"], leaves["bias"]]
    alone = torch.autograd.grad(replace(shard, floats=frozen).run(function).sum(), head)
    return {
        "twice": all(torch.equal(a, b) for a, b in zip(first, second, strict=True)),
        "alone": all(torch.equal(a, b) for a, b in zip(first[1:], alone, strict=True)),
        "grads": dict(zip(leaves, first, strict=True)),
    }


def refused(rank: int, group: dist.ProcessGroup) -> dict[str, str]:
    """What each rank says to what is not taken; none of them waits for another for ever."""
    shard = SPLITS["torch.float32"].shard(rank)
    hidden, weight, bias = (t.clone() for t in shard.floats.values())
    target, outside, other = shard.target, shard.target.clone(), shard.target.clone()
    outside[2] = 77
    other[rank] = 5
    over = functools.partial(suder_ext.linear_logprob, group=group)

    def call(h: Tensor) -> Tensor:
        return over(h, weight, target, bias)

    leaf = hidden.clone().requires_grad_()
    value = call(leaf)
    ones = torch.ones_like(value)
    return {
        "outside": error(lambda: over(hidden, weight, outside, bias)),
        "target": error(lambda: over(hidden, weight, other, bias)),
        "settings": error(lambda: over(hidden, weight, target, bias, temperature=1.0 + rank)),
        "tokens": error(lambda: over(hidden[rank:], weight, target[rank:], bias)),
        "gradient": error(lambda: over(hidden.requires_grad_(rank == 1), weight, target, bias)),
        "group": error(lambda: suder_ext.linear_logprob(hidden, weight, target, group=-100)),
        "meta": error(lambda: over(hidden.to("meta"), weight.to("meta"), target.to("meta"))),
        "vmap": error(lambda: torch.func.vmap(call)(hidden.detach()[None])),
        "jvp": error(lambda: torch.func.jvp(call, (hidden.detach(),), (hidden.detach(),))),
        "grad": error(lambda: torch.func.grad(lambda h: call(h).sum())(hidden.detach())),
        "twice": error(lambda: torch.autograd.grad(value, leaf, ones, create_graph=True)),
        "batched": error(
            lambda: torch.autograd.grad(value, leaf, ones[None], is_grads_batched=True)
        ),
    }


def compiled(rank: int, group: dist.ProcessGroup) -> list[bool]:
    """What torch.compile gives, in a group of one."""
    split = SPLITS["torch.float32"]
    function = functools.partial(suder_ext.linear_logprob_stats, group=group)
    once = torch.compile(function, backend="eager")
    got, got_grads = gradients(split.case, once, split.upstream())
    eager, grads = gradients(split.case, function, split.upstream())
    pairs = (eager, got), (grads, got_grads)
    return [torch.equal(a[name], b[name]) for a, b in pairs for name in a]


def whole_graph(rank: int, group: dist.ProcessGroup) -> str:
    case = SPLITS["torch.float32"].case
    function = functools.partial(suder_ext.linear_logprob, group=group)
    return error(lambda: case.run(torch.compile(function, fullgraph=True, backend="eager")))


CHECKS = {
    2: (sequences, same_bits, autograd, refused),  # by the size of the group that they are for
    1: (compiled, whole_graph),
}
