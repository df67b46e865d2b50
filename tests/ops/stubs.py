"""What a compiled module says of itself beside what its stub says.

    python -m tests.ops.stubs build/cuda/csrc/cuda/_C_cuda.*.so suder_ext/_C_cuda.pyi

stubtest (`make lint`) sees names only: functions of pybind11 tell their parameters in their docs.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

# What pybind11 writes for a parameter that takes Python's int or float.
TAKES = {"typing.SupportsInt | typing.SupportsIndex": "int",
         "typing.SupportsFloat | typing.SupportsIndex": "float"}  # fmt: skip
Said = dict[str, list[str]]


def built(module: ModuleType) -> Said:
    """Name -> parameters and what is returned; or the type of a value."""
    said = {}
    for name, value in vars(module).items():
        if name.startswith("__"):
            continue
        if not callable(value):
            said[name] = [type(value).__name__]
            continue
        text = (value.__doc__ or "").splitlines()[0]
        for long, short in TAKES.items():
            text = text.replace(long, short)
        (function,) = ast.parse(f"def {text}: ...").body
        assert isinstance(function, ast.FunctionDef)
        said[name] = signature(function)
    return said


def declared(stub: Path) -> Said:
    said = {}
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            said[node.name] = signature(node)
        elif isinstance(node, ast.AnnAssign):
            said[ast.unparse(node.target)] = [plain(node.annotation)]
    return said


def signature(function: ast.FunctionDef) -> list[str]:
    """A line a parameter. One that the module does not name can only be given by its place."""
    given = function.args
    placed = [*given.posonlyargs, *given.args]
    lines = []
    for one in placed:
        by_place = one in given.posonlyargs or re.fullmatch(r"arg\d+", one.arg)
        lines.append(f"{'by place' if by_place else one.arg}: {plain(one.annotation)}")
    first_default = len(placed) - len(given.defaults)
    lines = [line + " = ..." * (i >= first_default) for i, line in enumerate(lines)]
    for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        lines.append(f"*, {one.arg}: {plain(one.annotation)}" + " = ..." * (default is not None))
    return [*lines, f"-> {plain(function.returns)}"]


def plain(annotation: ast.expr | None) -> str:
    """A type without what only a stub can know of a dict's or a tuple's items."""
    assert annotation is not None
    text = ast.unparse(annotation)
    return re.sub(r"^(dict|tuple)\[.*", r"\1", text)


def differences(module: ModuleType, stub: Path) -> list[str]:
    ours, theirs = built(module), declared(stub)
    found = []
    for name in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(name), theirs.get(name)
        if here is None or there is None:
            found.append(f"{name} is in the {'stub' if here is None else 'module'} only")
        elif here != there:
            extra = [line for line in here if line not in there]
            missing = [line for line in there if line not in here]
            found.append(f"{name}: the module has {extra}, the stub {missing} (or another order)")
    return found


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.name.partition(".")[0], path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    library, stub = map(Path, sys.argv[1:])
    if found := differences(load(library), stub):
        sys.exit("\n".join([f"{stub} is not what {library} is:", *found]))
    print(f"{stub}: {len(declared(stub))} names as in {library.name}")
