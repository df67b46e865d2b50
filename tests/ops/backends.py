"""Switches between the reference, the instruction sets of the compiled module, emulated CUDA."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import suder_ext
from suder_ext import _load
from suder_ext._ops import eager
from tests.ops.emulated import EMULATED, use_emulated

ISAS: list[str] = list(suder_ext.build_info()["isas"])
BACKENDS = ["reference", *ISAS, *EMULATED]
_emulated: list[str] = []  # the emulated backend in use, if one is


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run suder_ext's public functions on one backend; SUDER_CPU_ISA is read at every call."""
    if name == "reference":
        nowhere = dict.fromkeys(_load.kernel_devices, frozenset[str]())
        with (
            mock.patch.object(_load, "kernel_devices", nowhere),
            mock.patch.dict(eager.kernels, clear=True),
        ):
            yield
    elif name in EMULATED:
        with use_emulated(name):
            _emulated.append(name)
            yield
            _emulated.pop()
    else:
        with mock.patch.dict(os.environ, SUDER_CPU_ISA=name):
            yield


def running() -> str:
    """The backend in use: "reference", an instruction set or emulated CUDA."""
    if _emulated:
        return _emulated[-1]
    if "cpu" not in _load.kernel_devices["linear_logprob"]:
        return "reference"
    return str(suder_ext.build_info()["isa"])
