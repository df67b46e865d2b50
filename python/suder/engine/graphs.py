"""Steps recorded once and run again: a step is some hundred launches, which cost a GPU's host more
than the GPU.

A recorded step reads and writes where it did. So the batches that were recorded are kept, and a new
one of the same shapes is copied into one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch

from suder.engine.step import Batch
from suder.models.away import comes_and_goes

# Of a device's memory, what batches may hold from one call to the next.
SHARE = 1 / 8


class Graphs:
    """Recorded steps of one model.

    Args:
        record: makes of a step one that runs what it records.
        budget: bytes of batches to keep; the one in use is kept whatever it takes.
    """

    def __init__(self, record: Callable[[Callable[[], None]], Callable[[], None]], budget: int):
        self.record, self.budget = record, budget
        self.kept: dict[Hashable, Batch] = {}  # used last at the end
        self.steps: dict[Hashable, dict[Hashable, Callable[[], None] | None]] = {}

    def settled(self, batch: Batch, weights: Hashable) -> tuple[Hashable, Batch]:
        """The batch, or one of its shapes that is known and has become equal to it, and its key.

        `weights` tells where the weights are, which recorded steps read there.
        """
        tensors = batch.tensors()
        shapes = tuple((one.dtype, one.shape) for one in tensors)
        key = (shapes, batch.rules, batch.board.end, batch.decoding.guidance, weights)
        known = self.kept.pop(key, batch)
        if known is batch:
            batch.decoding.make_room()
        else:
            for old, new in zip(known.tensors(), tensors, strict=True):
                old.copy_(new)
        self.kept[key] = known
        self._drop()
        return key, known

    def step(self, key: Hashable, batch: Batch, columns: int, row_ends: bool = False) -> None:
        steps, kind = self.steps.setdefault(key, {}), (columns, row_ends)
        if kind not in steps:
            steps[kind] = None
            batch.step(*kind)  # what is made at a first call is no part of a step
            return
        again = steps[kind]
        if again is None:
            again = steps[kind] = self.record(lambda: batch.step(*kind))
        again()

    def _drop(self) -> None:
        """Those not used for longest, until the others fit."""
        sizes = {
            key: sum(one.nbytes for one in batch.tensors()) for key, batch in self.kept.items()
        }
        for key in list(self.kept)[:-1]:
            if sum(sizes.values()) <= self.budget:
                return
            del sizes[key], self.kept[key]
            self.steps.pop(key, None)


_of: WeakKeyDictionary[Any, Graphs] = WeakKeyDictionary()


def graphs_of(model: Any) -> Graphs | None:
    """The recorded steps of a model on a GPU; None elsewhere, and where its weights come and go."""
    device = model.device
    if device.type != "cuda" or comes_and_goes(model):
        return None
    if model not in _of:
        total = torch.cuda.get_device_properties(device).total_memory
        _of[model] = Graphs(_recorder(device), int(SHARE * total))
    return _of[model]


def _recorder(device: torch.device) -> Callable[[Callable[[], None]], Callable[[], None]]:
    pool = torch.cuda.graph_pool_handle()  # one step runs at a time: all may use the same memory

    def record(step: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(device),
            torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"),
        ):
            step()
        return graph.replay

    return record
