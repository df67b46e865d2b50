"""Transforms of torch that kernels have no rule for: where one is at work, the reference runs.

It is plain PyTorch, so torch.func (grad, vjp, jvp, vmap, jacrev, jacfwd, hessian and what they are
composed to), forward-mode AD and second derivatives are those of torch's own operators.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

try:
    from torch._C import _are_functorch_transforms_active
except ImportError:  # a torch that has another name for it

    def _are_functorch_transforms_active() -> bool:
        return torch._C._functorch.peek_interpreter_stack() is not None


def active() -> bool:
    """Whether a transform of torch.func or forward-mode AD is at work here and now.

    Compilers see the answer that holds where they trace, and trace again where it is another.
    """
    return _are_functorch_transforms_active() or forward_ad._current_level >= 0


def values_are_known(tensor: Tensor) -> bool:
    """Whether a check may look at the values: not while tracing, under vmap, or on a GPU."""
    return (
        tensor.device.type == "cpu"
        and not isinstance(tensor, FakeTensor)
        and not torch.compiler.is_compiling()
        and not _are_functorch_transforms_active()
    )
