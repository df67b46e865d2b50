"""What a CUDA graph would record of a step, on the CPU: operators, and what they read and write.

A recorded step can be run again, as a graph is: the same operators on the same memory with the same
numbers. What a step keeps in Python would then be what it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

# Operators that make a GPU wait for a value, or whose result has a shape that depends on one.
WAITING = {
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::is_nonzero",
    "aten::equal",
    "aten::allclose",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::bincount",
    "aten::multinomial",
}


# Calls that copy between a GPU and the host; on the CPU some do nothing that a dispatcher sees.
COPYING = {"cpu", "cuda", "numpy", "tolist", "item", "tensor", "as_tensor", "from_numpy"}
COPYING |= {"__bool__", "__int__", "__float__", "__index__", "__array__"}


class Waits(AssertionError):
    """A step that cannot be recorded."""


class NoCopies(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in COPYING:
            raise Waits(f"{name} copies between a GPU and the host")
        if name == "to" and any(
            isinstance(one, str | torch.device) for one in (*args, *kwargs.values())
        ):
            raise Waits("to another device")
        return func(*args, **kwargs)


class Recorder(TorchDispatchMode):
    """Inside, everything that tensors go through is written down.

    Attributes:
        record: an operator each: its name, and of each argument what it was. A tensor is a shape,
            strides, a dtype and a place: an address, if it was there before, else which result of
            which operator it shares its memory with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.record: list[tuple[Any, ...]] = []
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.made: dict[int, str] = {}  # by the address of the memory; `calls` keeps it alive
        self.functions = NoCopies()

    def __enter__(self) -> Any:
        self.functions.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> Any:
        super().__exit__(*error)
        return self.functions.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().partition(".")[0]
        if name in WAITING:
            raise Waits(f"{name} waits for a value")
        if name == "aten::index" and any(
            isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) for part in args[1]
        ):
            raise Waits("aten::index with a mask waits for the number of its elements")
        leaves, spec = tree_flatten((args, kwargs))
        described = tuple(self._described(leaf) for leaf in leaves)
        result = func(*args, **kwargs)
        place = len(self.record)
        for number, one in enumerate(tree_flatten(result)[0]):
            if isinstance(one, Tensor) and not self._known(one, leaves):
                self.made[one.untyped_storage().data_ptr()] = f"{place}.{number}"
        self.record.append((func.name(), described, str(spec)))
        self.calls.append((func, args, kwargs, result))
        return result

    def replay(self) -> None:
        """Runs the operators again; results go where they went."""
        for func, args, kwargs, result in self.calls:
            again = tree_flatten(func(*args, **kwargs))[0]
            for old, new in zip(tree_flatten(result)[0], again, strict=True):
                if isinstance(old, Tensor) and _memory(old) != _memory(new):
                    old.copy_(new)

    def _known(self, result: Tensor, given: list[Any]) -> bool:
        """Whether it is a view of an argument, or the argument itself."""
        return any(isinstance(one, Tensor) and _memory(one) == _memory(result) for one in given)

    def _described(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return repr(leaf)
        memory = _memory(leaf)
        place = self.made.get(memory, memory)
        return tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.storage_offset(), place


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
