"""Whether what is installed works here: every operator on every device, and suder's own files.

    python -m suder_ext.selftest

Each public function runs on small inputs on every instruction set and GPU that this machine has and
is compared with the same in float64 on plain PyTorch, gradients included; then what comes with
suder is loaded: models, recipes, pages. Under a minute. Exit code 0 if all is right, else 1.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

import suder_ext
from suder_ext import _load
from suder_ext.selftest.ops import calls, problem_of


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m suder_ext.selftest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(argv)
    began = time.perf_counter()
    info = suder_ext.build_info()
    print(
        f"suder {info['version']}, torch {torch.__version__}, Python {platform.python_version()}\n"
        f"CPU kernels: {info['compiler'] or 'none'}; {', '.join(info['isas']) or info['reason']}\n"
        f"CUDA kernels: {', '.join(info['cuda_architectures']) or info['cuda_reason']}"
    )
    problems = [*_kernels(), *_operators(), *_packaged()]
    for problem in problems:
        print(f"  wrong: {problem}")
    if problems:
        print(
            f"The self-test failed: {len(problems)} of its checks, above. Results on this machine "
            "cannot be trusted; reinstall suder, and if that does not help, report these lines."
        )
        return 1
    print(f"The self-test passed in {time.perf_counter() - began:.0f} s.")
    return 0


def _kernels() -> Iterator[str]:
    if _load.compiled is None:
        yield f"no compiled kernels: {_load.fallback_reason}; all runs on plain PyTorch, slowly"
        return
    for op, devices in suder_ext.build_info()["operators"].items():
        if "cpu" not in devices:
            yield f"{op} has no kernel for CPU tensors"


def _operators() -> Iterator[str]:
    every = list(calls())
    oracles: dict[tuple[int, torch.dtype], dict[str, torch.Tensor]] = {}
    for place, isa, device in _places():
        began, count, failed = time.perf_counter(), 0, 0
        for number, call in enumerate(every):
            for dtype in call.dtypes:
                count += 1
                try:
                    if (number, dtype) not in oracles:
                        oracles[number, dtype] = call.expected(dtype)
                    with _isa(isa):
                        found = call.run(dtype, device)
                    problem = problem_of(found, oracles[number, dtype], dtype)
                except Exception as error:  # a report of all that fails, not of the first alone
                    problem = f"{type(error).__name__}: {error}"
                if problem is not None:
                    failed += 1
                    settings = "".join(f", {key}={value}" for key, value in call.settings.items())
                    named = str(dtype).removeprefix("torch.")
                    yield f"{call.name} on {place} ({named}{settings}): {problem}"
        took = time.perf_counter() - began
        print(f"{place}: {count - failed} of {count} calls agree with float64 ({took:.1f} s)")


def _places() -> Iterator[tuple[str, str | None, str]]:
    """A name for people, the instruction set to force, and the device."""
    for isa in suder_ext.build_info()["isas"] or [None]:
        yield f"CPU, {isa or 'plain PyTorch'}", isa, "cpu"
    for index in range(torch.cuda.device_count()):
        runs = "" if _load.has_code_for(index) else ", plain PyTorch"
        yield f"GPU {index}, {torch.cuda.get_device_name(index)}{runs}", None, f"cuda:{index}"


@contextmanager
def _isa(name: str | None) -> Iterator[None]:
    """SUDER_CPU_ISA is read at every call."""
    before = os.environ.get("SUDER_CPU_ISA")
    if name is not None:
        os.environ["SUDER_CPU_ISA"] = name
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("SUDER_CPU_ISA", None)
        else:
            os.environ["SUDER_CPU_ISA"] = before


def _packaged() -> Iterator[str]:
    """suder knows what comes with it; suder_ext alone is an installation, too."""
    if importlib.util.find_spec("suder") is None:
        print("suder, the trainer: not installed")
        return
    began, count, failed = time.perf_counter(), 0, 0
    for what, problem in importlib.import_module("suder.cli.packaged").checked():
        count += 1
        if problem is not None:
            failed += 1
            yield f"{what}: {problem}"
    took = time.perf_counter() - began
    print(f"suder: {count - failed} of {count} packaged files load ({took:.1f} s)")


if __name__ == "__main__":
    sys.exit(main())
