"""A model without weights, and the bytes that running it would hold."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import JanusForConditionalGeneration

from suder.models.checkpoint_files import read_config
from suder.models.find import find_model
from suder.models.janus.adapter import Janus
from suder.models.load import read_processor
from suder.models.usable import check_device, check_no_run
from suder.settings.config import TrainConfig


@contextmanager
def dry_model(config: TrainConfig) -> Iterator[Janus]:
    """The model of a run, of tensors with shapes and no memory; so is all that is made inside."""
    check_device(config.device)
    folder, _ = find_model(config.model)
    check_no_run(folder)
    compute = torch.bfloat16 if config.dtype == "bfloat16" else None
    processor = read_processor(folder)
    with torch.device("meta"):
        core = JanusForConditionalGeneration._from_config(
            read_config(folder), attn_implementation="sdpa"
        )
    model = Janus(core, processor, compute=compute).eval()
    if config.lora.rank:
        model.add_lora(config.lora, 0)
    model.checkpoint_activations = config.optimizer.checkpoint_activations
    with FakeTensorMode(allow_non_fake_inputs=True):
        _replace_tensors(model)
        yield model


def _replace_tensors(model: nn.Module) -> None:
    """Meta tensors have no autocast and mix with no others: each becomes a fake one of the CPU."""
    known: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            new = torch.empty(tensor.shape, dtype=tensor.dtype)
            known[id(tensor)] = (
                nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
            )
        return known[id(tensor)]

    for module in model.modules():
        for tensors in (vars(module)["_parameters"], vars(module)["_buffers"]):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = fake(tensor)


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operators made inside and that are still there.

    Attributes:
        now, peak: of all tensors, views counted once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes or tensor.is_meta:
            return
        self._sizes[key] = storage.nbytes()
        self.now += self._sizes[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def peak_of(run: Callable[[], Any]) -> int:
    """The most bytes that a call makes and holds at once."""
    with LiveBytes() as live:
        kept = run()
    del kept
    return live.peak
