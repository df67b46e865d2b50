"""Finds the compiled module and decides, once, what runs: its kernels or the PyTorch reference.

The reference runs where there is no kernel: nothing compiled, a float64 input (gradcheck), a device
without kernels, or a transform at work (_transforms.py). SUDER_KERNEL=reference forces it
everywhere; SUDER_KERNEL=compiled makes a missing _C an error instead of a fallback.
`suder_ext.build_info()` says which, and why.
"""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from types import ModuleType

import torch

from suder_ext import _transforms

CHOICES = ("auto", "compiled", "reference")
OPERATORS = (
    "linear_logprob",
    "linear_kl",
    "logprob",
    "sequence_reduce",
    "group_advantage",
    "sample_token",
    "linear_sample_token",
    "preference_loss",
    "policy_loss",
)


def _find() -> tuple[ModuleType | None, str]:
    """The compiled module, or None and the reason why the reference runs instead."""
    choice = os.environ.get("SUDER_KERNEL", "auto")
    if choice not in CHOICES:
        raise ValueError(f"SUDER_KERNEL is {choice!r}; it takes one of {', '.join(CHOICES)}")
    if choice == "reference":
        return None, "SUDER_KERNEL=reference"
    try:
        # `from suder_ext import _C` would raise the same error for a missing and a broken module.
        _C = import_module("suder_ext._C")
    except ModuleNotFoundError:
        module, reason, broken = None, "suder_ext._C was not built", False
    except ImportError as error:
        module, reason, broken = None, f"suder_ext._C does not load: {error}", True
    else:
        missing = [name for name in (*OPERATORS, "logit_tile") if not hasattr(_C, name)]
        module, broken = (None, True) if missing else (_C, False)
        reason = f"suder_ext._C is of an older build, without {missing[0]}" if missing else ""
    if module is None and choice == "compiled":
        raise ImportError(f"SUDER_KERNEL=compiled, but {reason}; run `pip install .`")
    if broken:
        # A module that is there and cannot be used is a broken install: slow results without a
        # word would hide it.
        warnings.warn(f"suder_ext runs on its reference: {reason}", RuntimeWarning, stacklevel=2)
    return module, reason


compiled, fallback_reason = _find()

# Operator -> device types whose tensors go to its kernel; each backend adds itself (_ops/cpu).
# Meta tensors need only the shape functions, which are always there.
kernel_devices: dict[str, frozenset[str]] = {op: frozenset({"meta"}) for op in OPERATORS}


def has_code_for(index: int | None) -> bool:
    """Whether a CUDA device can run the kernels; _ops/cuda puts its own in the place of this."""
    return False


def has_kernel(op: str, tensor: torch.Tensor, *others: torch.Tensor | None) -> bool:
    """Whether these arguments go to a kernel of `op` (True) or to the reference (False)."""
    if _transforms.active():
        return False
    if tensor.dtype == torch.float64 or tensor.device.type not in kernel_devices[op]:
        return False
    if tensor.is_cuda and not has_code_for(tensor.device.index):
        return False
    return all(other is None or other.dtype != torch.float64 for other in others)
