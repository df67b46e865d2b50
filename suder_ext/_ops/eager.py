"""The short way: an eager call on plain CPU or CUDA tensors goes straight to its kernel.

torch's dispatcher and its Python wrappers take several times as long as the kernel of a small
problem. They are for those who must see an operator: compilers, modes, transforms, tracers and
profilers. `ready` says that there is none of them and that the arguments can be read where they
lie, `shape` that they need no cast; else torch.ops.suder runs. The results have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import Any

import torch
from torch import Tensor

from suder_ext import _load, _transforms

FLOAT32 = frozenset({torch.float32})
INT64 = frozenset({torch.int64})
HEAD = frozenset({torch.float32, torch.bfloat16, torch.float16})

# Filled where the operators are registered (cpu/call.py, autograd.py). Whoever puts another
# implementation in the CPU's place empties `kernels`; else that one would never run.
kernels: dict[str, Callable[..., Any]] = {}
without_grad: dict[str, Callable[..., Any]] = {}  # the same, less what only a backward reads
with_grad: dict[str, Callable[..., Any]] = {}  # the same, recorded by autograd
# CUDA's (cuda/__init__.py): for these the host's time is what the device waits for.
cuda_kernels: dict[str, Callable[..., Any]] = {}
cuda_without_grad: dict[str, Callable[..., Any]] = {}

# How many of an operator's first arguments take a gradient.
DIFFERENTIABLE = {
    "linear_logprob": 3,
    "linear_kl": 6,
    "logprob": 1,
    "sequence_reduce": 1,
    "group_advantage": 0,
    "sample_token": 0,
    "linear_sample_token": 0,
    "preference_loss": 4,
    "policy_loss": 5,
}

try:
    from torch._C import (
        _any_requires_grad,
        _is_torch_function_mode_enabled,
        _is_tracing,
        _len_torch_dispatch_stack,
    )
    from torch._C._autograd import _profiler_enabled

    _available = True
except ImportError:  # a torch that has other names for them: everything goes the long way
    _available = False

_KINDS = frozenset({Tensor, torch.nn.Parameter})  # no subclass: it may want to see the operator


def ready(op: str, *tensors: Tensor | None) -> bool:
    """Whether an operator may go past the dispatcher here and now, with these arguments."""
    return (
        not torch.compiler.is_compiling()
        and _available
        and (op in kernels or op in cuda_kernels)
        and _len_torch_dispatch_stack() == 0
        and not _is_torch_function_mode_enabled()
        and not _transforms.active()
        and not _is_tracing()
        and not _profiler_enabled()
        and readable(tensors)
        and _has_kernel(op, tensors)
    )


def _has_kernel(op: str, tensors: tuple[Any, ...]) -> bool:
    """For the device that all of them are on."""
    device = next(tensor.get_device() for tensor in tensors if tensor is not None)
    return op in kernels if device < 0 else op in cuda_kernels and _load.has_code_for(device)


def kernel(op: str, like: Tensor) -> Callable[..., Any]:
    """An operator's kernel for the device of `like`."""
    return (cuda_kernels if like.is_cuda else kernels)[op]


def readable(tensors: Iterable[Any]) -> bool:
    """Whether each is absent or its memory holds its values: no lazy negative, zero or wrapper; and
    all are on one device."""
    device = None
    try:
        for tensor in tensors:
            if tensor is None:
                continue
            if (
                type(tensor) not in _KINDS
                or not (tensor.is_cpu or tensor.is_cuda)
                or (device is not None and tensor.get_device() != device)
                or tensor.is_neg()
                or (tensor.data_ptr() == 0 and tensor.numel() > 0)
            ):
                return False
            device = tensor.get_device()
    except RuntimeError:  # sparse, opaque: there is no address
        return False
    return True


def shape(
    rank: int, dtypes: Set[torch.dtype], first: Tensor | None, *others: Tensor | None
) -> torch.Size | None:
    """The shape of all these `ready` tensors if a kernel can take them as they are, else None.

    None is absent, they have the rank, one of the dtypes and at least one element.
    """
    if first is None or first.dtype not in dtypes:
        return None
    size = first.shape
    for tensor in others:
        if tensor is None or tensor.dtype not in dtypes or tensor.shape != size:
            return None
    return size if len(size) == rank and 0 not in size else None


def call(op: str, *arguments: Any) -> Any:
    """Run an operator that is `ready`, on tensors whose `shape` fits."""
    if torch.is_grad_enabled() and _any_requires_grad(*arguments[: DIFFERENTIABLE[op]]):
        return with_grad[op](*arguments)
    return (cuda_without_grad if arguments[0].is_cuda else without_grad)[op](*arguments)


def call_backward(op: str, *arguments: Any) -> Any:
    """Run a backward operator inside a backward, the short way if that is possible."""
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    if ready(op, *tensors):
        return kernel(op, tensors[0])(*arguments)
    return getattr(torch.ops.suder, op).default(*arguments)
