"""The CUDA kernels run by the emulator (tests/cuda_emulator), in the place of the CPU's operators.

`make emulated` builds them; where they are not built, the tests of this device are not collected.
SUDER_EMULATED names another build's folder, such as one with sanitizers.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch

from suder_ext import _workspace
from suder_ext._ops import eager, head_shards, kept_logits, pair_chunks
from suder_ext._ops.cuda import (
    call,
    head_shard,
    kept_exps,
    logit_gradients,
    ops,
    sampling,
    tensor_cores,
    tiles,
)

FOLDER = Path(
    os.environ.get("SUDER_EMULATED", Path(__file__).parents[2] / "build/emulated")
).joinpath("tests/cuda_emulator")


def load(name: str) -> ModuleType | None:
    """A module of the emulated kernels, or None if it is not built for this Python."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = FOLDER / f"{name}{suffix}"
        if path.exists():
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    return None


KERNELS = load("_C_emulated")
# Backend -> the way through the linear head (suder_ext/_ops/cuda/tensor_cores.py).
WAYS: dict[str, object] = {
    "emulated-tiles": "tiles",
    "emulated-fused": "mma",
    "emulated-hopper": "wgmma",
}
EMULATED = list(WAYS) if KERNELS is not None else []


class Unasked:
    """In the place of a way: fails the test where a kernel asks for it."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("this test comes to the tensor cores: take it out of ONE_WAY")

    __hash__ = None  # type: ignore[assignment]


@contextmanager
def use_emulated(name: str, kernels: ModuleType | None = KERNELS) -> Iterator[None]:
    """Run torch.ops.suder on CPU tensors through the CUDA functions and the emulated kernels."""
    with (
        torch.library._scoped_library("suder", "IMPL") as library,
        mock.patch.object(call, "kernels", kernels),
        mock.patch.object(tensor_cores, "chosen", WAYS[name]),
        mock.patch.dict(eager.kernels, clear=True),  # the CPU's, which would go past the dispatcher
        mock.patch.object(pair_chunks, "DEVICES", frozenset()),
        mock.patch.dict(head_shards.shards, cpu=head_shard.CudaShard()),
        mock.patch.dict(kept_logits.rooms, cpu=kept_exps.room),
        mock.patch.object(_workspace, "kept_bytes", 2**29),
        mock.patch.object(kept_exps, "WHOLE_ROWS", 16),
        # Small tiles: every loop over them is taken more than once.
        mock.patch.object(tiles, "TILE_TOKENS", 16),
        mock.patch.object(tiles, "TILE_VOCAB", 512),
        mock.patch.object(sampling, "HEIGHT", 16),
        mock.patch.object(logit_gradients, "CHUNK_TOKENS", 48),
        mock.patch.object(logit_gradients, "SLICE_COLUMNS", 512),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that kernels are overridden
            for op, function in ops.OPS.items():
                library.impl(op, function, "CPU", allow_override=True)
        yield


@contextmanager
def short_way() -> Iterator[None]:
    """Inside `use_emulated`: eager calls go past the dispatcher, as CUDA tensors do."""
    with (
        mock.patch.dict(eager.kernels, ops.OPS),
        mock.patch.dict(eager.without_grad, {**ops.OPS, **ops.WITHOUT_GRAD}),
    ):
        yield
