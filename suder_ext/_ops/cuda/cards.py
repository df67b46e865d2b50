"""For which cards the module holds code."""

from __future__ import annotations

import re

import torch

from suder_ext._ops.cuda import call

_known: dict[int | None, bool] = {}


def runs_on(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether code for these architectures, such as "80-real,90a-real,100-virtual", runs there.

    Machine code runs on its own major version from its minor one on, PTX on everything newer; what
    has an "a" on exactly that card. A name without "-real" or "-virtual" stands for both.
    """
    for name in architectures.split(","):
        if (parsed := _parsed(name)) is None:
            continue
        number, letter, kind = parsed
        same_major = number[0] == capability[0] and number[1] <= capability[1]
        if letter:
            fits = number == capability
        elif kind == "real":
            fits = same_major
        else:
            fits = number <= capability
        if fits:
            return True
    return False


def _parsed(name: str) -> tuple[tuple[int, int], str, str] | None:
    """None for a name that says no number, such as CMake's `native`."""
    found = re.fullmatch(r"(\d+)(\d)([a-z]?)(?:-(real|virtual))?", name)
    if found is None:
        return None
    return (int(found[1]), int(found[2])), found[3], found[4] or ""


def has_code_for(index: int | None) -> bool:
    """Whether the kernels run on a device (None: the current one). Only the first call asks it."""
    if index is None and torch.cuda.is_available():
        index = torch.cuda.current_device()
    if index not in _known:
        if not torch.cuda.is_available():  # tensors without data, for tracing
            return True
        capability = torch.cuda.get_device_capability(index)
        _known[index] = runs_on(call.architectures(), capability)
    return _known[index]


# torch.compile must not look inside: what a device can do does not change. This is all that
# torch.compiler.assume_constant_result does, but for an import of seconds.
vars(has_code_for)["_dynamo_marked_constant"] = True


def any_runs() -> bool:
    """Whether kernels run at all: there are some, and a card for them, or no card to be seen."""
    if call.kernels is None:
        return False
    if not torch.cuda.is_available():
        return True
    return any(map(has_code_for, range(torch.cuda.device_count())))


def reason() -> str:
    """Why CUDA tensors run the reference, on which cards; "" where they run kernels."""
    if call.kernels is None:
        return call.missing_reason
    if not torch.cuda.is_available():
        return ""
    left_out = []
    for index in range(torch.cuda.device_count()):
        if not has_code_for(index):
            major, minor = torch.cuda.get_device_capability(index)
            left_out.append(f"cuda:{index} ({torch.cuda.get_device_name(index)}, {major}.{minor})")
    if not left_out:
        return ""
    return f"built for {call.architectures()}: no code for {', '.join(left_out)}"
