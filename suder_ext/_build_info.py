"""What this installation is and what runs."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from suder_ext import _load
from suder_ext._ops.cuda import call, cards

try:
    __version__ = metadata.version("suder")
except metadata.PackageNotFoundError:  # imported from a source tree that was never installed
    __version__ = "0.0.0"


def build_info() -> dict[str, Any]:
    """What was built and what runs.

    Returns:
        version: of the package.
        kernel: "compiled" or "reference": what float32 and 16-bit CPU tensors run on.
        reason: why the reference runs, or "".
        operators: operator -> device types that have a kernel; any other tensor runs on the
            reference.
        isa, isas: the CPU instruction set in use (SUDER_CPU_ISA forces one) and those that this
            build can use here, slowest first; None and [] without a compiled module.
        cuda_kernel, cuda_reason: the same for CUDA tensors; "compiled" where any card here runs the
            kernels, and the reason then names the cards that do not.
        cuda_architectures: those compiled in.
        compiler, sanitized: how the compiled module was built.
    """
    cuda_reason = cards.reason()
    info: dict[str, Any] = {
        "version": __version__,
        "kernel": "reference" if _load.compiled is None else "compiled",
        "reason": _load.fallback_reason,
        "operators": {
            op: sorted(devices - {"meta"}) for op, devices in _load.kernel_devices.items()
        },
        "isa": None,
        "isas": [],
        "cuda_kernel": "compiled" if cards.any_runs() else "reference",
        "cuda_reason": cuda_reason,
        "cuda_architectures": call.architectures().split(",") if call.kernels else [],
        "compiler": None,
        "sanitized": False,
    }
    if _load.compiled is not None:
        built = _load.compiled.build_info()
        info.update({name: built[name] for name in ("isa", "isas", "compiler", "sanitized")})
    return info
