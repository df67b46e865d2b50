"""Writing so that a reader never meets half a file, and seeds that depend on nothing else."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def seed_of(*parts: object) -> int:
    """A 63-bit seed from a run's seed, round, phase and direction, the same on every machine."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def write_text(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: NaN and infinities are no JSON, and no result either.

    Raises:
        ValueError: there is one in `value`; see `finite`.
    """
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)


def finite(tree: Any) -> Any:
    """The tree with None for every number that is not finite, which JSON has no word for."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def write_json(path: Path, value: Any) -> None:
    write_text(path, json_text(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_text(path, "".join(json_text(row) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The file's rows; none if there is no file. A last line cut off by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    """Tensors and, in the same file and so in the same instant, a JSON value beside them."""
    partial = path.with_name(path.name + ".partial")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, partial, metadata={"json": json_text(meta)})
    os.replace(partial, path)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        meta = json.loads((file.metadata() or {}).get("json", "{}"))
        return {name: file.get_tensor(name) for name in names}, meta


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Replaces the folder `path` by what `fill(folder)` writes, all of it or nothing.

    A folder cannot be exchanged in one step, so the old one is moved aside first;
    `repair_folder` brings it back if the program dies between the two renames.
    """
    partial, old = _beside(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
    os.replace(partial, path)
    shutil.rmtree(old, ignore_errors=True)


def repair_folder(path: Path) -> None:
    """Undoes an exchange of `write_folder` that was cut off half-way."""
    partial, old = _beside(path)
    if old.exists() and not path.exists():
        os.replace(old, path)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(partial, ignore_errors=True)


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".partial"), path.with_name(path.name + ".old")
