"""Operators of a model's forward, backward or step, as a GPU would be given them, run without one.

Tensors have shapes and no memory. The code takes CUDA's way, and autocast the CPU's, whose rules
are the same here: products in 16 bits, all else as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.model.cards import Card
from benchmarks.rounds.shapes import build
from suder.models import Janus
from suder.models.weightless import _replace_tensors
from suder.settings.learning import Lora

# Tensors that an operator has left are read from L2 if they are no larger.
IN_L2 = 20e6
# Of these only what is chosen or written moves, not the whole of what they choose from or write to.
PARTIAL = ("index_copy_", "index_fill_", "index_select", "embedding", "gather")


class Operator(NamedTuple):
    """What one kernel moves, from or to memory and within L2, and multiplies."""

    name: str
    dram: float
    l2: float
    flops: float
    wide: bool  # products of float32


class Operators(TorchDispatchMode):
    """Inside, every operator that is more than a view is written down."""

    def __init__(self) -> None:
        super().__init__()
        self.list: list[Operator] = []
        self.made: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        left = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        memory = {_memory(one) for one in given}
        written = function._schema.is_mutable
        if left and (written or not all(_memory(one) in memory for one in left)):
            self._add(function, args, kwargs or {}, result, given, left)
        return result

    def _add(
        self,
        function: Any,
        args: Any,
        kwargs: Any,
        result: Any,
        given: list[Tensor],
        left: list[Tensor],
    ) -> None:
        name = function.name().partition("::")[2].partition(".")[0]
        if name in ("empty", "detach", "_local_scalar_dense", "new_empty", "empty_strided"):
            return
        moved = [*given, *left]
        if name in PARTIAL:
            smallest = min((one.nbytes for one in moved if one.ndim > 1), default=0)
            moved = []
            self.list.append(Operator(name, 0.0, 2.0 * smallest, 0.0, False))
        else:
            near = [one.nbytes for one in moved if self._near(one)]
            far = [one.nbytes for one in moved if not self._near(one)]
            flops = _flops(function, name, args, kwargs, result)
            wide = given[0].dtype == torch.float32 if given else False
            self.list.append(Operator(name, float(sum(far)), float(sum(near)), flops, wide))
        self.made |= {_memory(one) for one in left}

    def _near(self, tensor: Tensor) -> bool:
        """Made here, or about to be: the last to write it was an operator of this list."""
        small = tensor.untyped_storage().nbytes() <= IN_L2
        return small and (_memory(tensor) in self.made or tensor.nbytes < 1e6)

    def seconds(self, card: Card) -> float:
        """On a GPU that waits for nothing else, one kernel after the other."""
        total = 0.0
        for one in self.list:
            rate = card.float32 if one.wide else card.product
            total += card.launch + max(one.dram / card.copy, one.l2 / card.l2, one.flops / rate)
        return total


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _flops(function: Any, name: str, args: Any, kwargs: Any, result: Any) -> float:
    if "scaled_dot_product" in name:
        tensors = [one for one in args if isinstance(one, Tensor)]
        query, key = (tensors[1], tensors[2]) if "backward" in name else (tensors[0], tensors[1])
        pairs = query.shape[0] * query.shape[1] * query.shape[-2] * key.shape[-2]
        products = 5 if "backward" in name else 2
        return (
            2.0
            * products
            * pairs
            * query.shape[-1]
            * (0.5 if any(one is True for one in args) else 1.0)
        )
    if name in ("mm", "bmm", "addmm"):  # torch's own count knows none that has a dtype to write
        left = [one for one in args if isinstance(one, Tensor)][-2]
        return 2.0 * result.numel() * left.shape[-1]
    known = flop_registry.get(function._overloadpacket)
    return float(known(*args, **kwargs, out_val=result)) if known else 0.0


@contextmanager
def weightless(shape: str, lora: int = 0) -> Iterator[Janus]:
    """A model of that shape, as a run in bfloat16 holds it, on a GPU that is not there."""
    model, _ = build(shape, "meta", torch.bfloat16, words=128)
    if lora:
        model.add_lora(Lora(rank=lora), 0)
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        mock.patch.object(FakeTensor, "is_cuda", True, create=True),
    ):
        _replace_tensors(model)
        yield model


def operators_of(run: Callable[[], Any]) -> Operators:
    with Operators() as operators:
        kept = run()
    del kept
    return operators
