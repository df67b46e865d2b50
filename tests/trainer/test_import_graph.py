"""The house: rooms on floors, imports only downwards, and no way from training to the judge.

All is read off the import graph, all paths followed. The judge must stay outside: a reward, a guard
or a stopping rule that could see it would make every number of the evaluation worthless.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import suder

ROOT = Path(suder.__file__).parent
JUDGE = "suder.evaluation"
# From the top floor down; a room imports itself and the floors below it. Rooms of one
# floor, such as the ground's four, know nothing of one another.
FLOORS = (
    ("cli", "integrations"),
    ("experiment",),
    ("report",),
    ("evaluation", "doctor"),
    ("run", "audit"),
    ("guard", "rollouts"),
    ("method", "testing"),
    ("engine",),
    ("pretrain",),
    ("models",),
    ("inputs",),
    ("world", "settings", "storage", "ranks"),
)
FLOOR_OF = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
# What may look at the judge. Everything else under suder trains, feeds training, or is imported by
# what does, modules added later included.
EVALUATORS = ("suder.evaluation", "suder.report", "suder.experiment")
EVALUATING_COMMANDS = tuple(
    f"suder.cli.{name}"
    for name in (
        "evaluate",
        "evaluate_own",
        "evaluate_suite",
        "evaluate_asked",
        "packaged",
        "report",
        "demo",
        "experiment",
        "audit",
    )
)

# Imports the one command that the user asked for by its name, so its strings are no imports: a
# command that trains never asks for one that judges. Its import statements count as any other's.
DISPATCHER = "suder.cli"


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = ("suder", *path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_modules(root: Path = ROOT) -> dict[str, Path]:
    return {module_name(path, root): path for path in sorted(root.rglob("*.py"))}


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The known modules that `name` can import, at its top or inside any function, or by a string.

    Importing a.b.c runs a and a.b too, and `from a import b` may mean the module a.b.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    dynamic = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            dynamic |= any(alias.name.split(".")[0] == "importlib" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, *([base] if base else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
            dynamic |= base.split(".")[0] == "importlib"
        elif isinstance(node, ast.Name) and node.id in ("__import__", "exec", "eval"):
            dynamic = True
    # Then any string that is a module's name, absolute or within this package, counts.
    if dynamic and name != DISPATCHER:
        strings = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        found |= strings | {f"{package}.{text.lstrip('.')}" for text in strings}
    parents = {name.rsplit(".", cut)[0] for name in found for cut in range(1, name.count(".") + 1)}
    own_parents = {name.rsplit(".", cut)[0] for cut in range(1, name.count(".") + 1)}
    return (found | parents | own_parents) & set(known)


def path_to_judge(start: str, graph: dict[str, set[str]]) -> list[str] | None:
    """A chain of imports from `start` to the judge, if there is one."""
    chains = [[start]]
    seen = {start}
    for chain in chains:
        if chain[-1] == JUDGE or chain[-1].startswith(JUDGE + "."):
            return chain
        for target in sorted(graph[chain[-1]] - seen):
            seen.add(target)
            chains.append([*chain, target])
    return None


def room_of(name: str) -> str:
    return name.split(".")[1]


def climbs(name: str, target: str) -> bool:
    """Whether an import leaves its room for one that is not below it; the root has no room."""
    if "." not in target:
        return False
    if "." not in name:
        return True
    here, there = room_of(name), room_of(target)
    if here == "__main__":
        return False
    return here != there and FLOOR_OF[there] <= FLOOR_OF[here]


def is_training(name: str) -> bool:
    within = any(name == judge or name.startswith(judge + ".") for judge in EVALUATORS)
    return not within and name not in EVALUATING_COMMANDS


MODULES = read_modules()
GRAPH = {name: imports(name, path, MODULES) for name, path in MODULES.items()}
TRAINING = [name for name in MODULES if is_training(name)]


def test_every_module_is_in_a_room():
    named = {room_of(name) for name in MODULES if "." in name} - {"__main__"}  # which is no room
    assert named == set(FLOOR_OF)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "suder"])
def test_imports_go_down(name: str):
    up = sorted(target for target in GRAPH[name] if climbs(name, target))
    assert not up, f"{name} imports {', '.join(up)}, which is not on a floor below"


def test_a_climb_is_found():
    assert climbs("suder.models.load", "suder.pretrain.vq")
    assert climbs("suder.settings.config", "suder.storage.files")
    assert not climbs("suder.pretrain.vq", "suder.models.load")
    assert not climbs("suder.models.load", "suder.models.base")


@pytest.mark.parametrize("name", TRAINING)
def test_training_module_cannot_reach_the_judge(name: str):
    chain = path_to_judge(name, GRAPH)
    assert chain is None, f"the judge leaks into training: {' -> '.join(chain or [])}"


def test_the_whole_trainer_is_covered():
    trains = ("run", "guard", "method", "engine", "pretrain", "models", "inputs", "settings")
    assert {f"suder.{room}" for room in (*trains, "storage", "world")} <= set(TRAINING)
    assert {"suder.run.trainer", "suder.method.rewards", "suder.guard.rule"} <= set(TRAINING)
    assert "suder.cli.train" in TRAINING
    assert path_to_judge("suder.evaluation.evaluate", GRAPH)
    assert path_to_judge("suder.report", GRAPH) or path_to_judge("suder.cli.demo", GRAPH)


def test_importing_every_training_module_loads_no_judge():
    """The same at run time: what is imported is what Python itself loads."""
    names = [name for name in TRAINING if not name.endswith("__main__")]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"leaked = [name for name in sys.modules if name.startswith({JUDGE!r})]\n"
        "sys.exit(f'loaded: {leaked}' if leaked else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "import suder.evaluation.checker",
        "from suder.evaluation import checker",
        "from suder import evaluation",
        "from . import evaluation",
        "from .evaluation.checker import picture_correct",
        "def late():\n    from suder.evaluation import checker",
        "import importlib\nimportlib.import_module('suder.evaluation.checker')",
        "import importlib\nimportlib.import_module('.evaluation', 'suder')",
        "import suder.between",
    ],
)
def test_a_leak_is_found(line: str, tmp_path: Path):
    """Each way of writing the import, once broken on purpose in a package made for it."""
    (tmp_path / "evaluation").mkdir()
    for name in ("__init__", "evaluation/__init__", "evaluation/checker"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "between.py").write_text("from suder.evaluation import checker")
    (tmp_path / "rewards.py").write_text(line + "\n")
    modules = read_modules(tmp_path)
    graph = {name: imports(name, path, modules) for name, path in modules.items()}
    assert path_to_judge("suder.rewards", graph) is not None
    assert path_to_judge("suder", graph) is None
