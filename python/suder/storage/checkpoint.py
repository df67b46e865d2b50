"""What a run leaves on disk to go on from, and what it leaves for the user."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from suder.storage.files import read_tensors, write_tensors

PACKAGES = (
    "suder",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "pydantic",
    "peft",
)


def save_state(
    run: Path, round_index: int, tensors: dict[str, torch.Tensor], meta: dict[str, Any]
) -> None:
    """The whole state after a round in one file; the state before it is deleted afterwards."""
    folder = run / "state"
    folder.mkdir(exist_ok=True)
    path = folder / f"{round_index:06d}.safetensors"
    write_tensors(path, tensors, {"round": round_index, **meta})
    for old in folder.glob("*.safetensors"):
        if old < path:
            old.unlink()


def load_state(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The latest state, or None if the run was killed before its first."""
    files = sorted((run / "state").glob("*.safetensors"))
    return read_tensors(files[-1]) if files else None


def prune(folder: Path, keep: int) -> None:
    """Deletes all but the last `keep` numbered entries (rounds/000012, checkpoints/000100)."""
    numbered = sorted(path for path in folder.glob("*") if path.name.isdigit())
    for path in numbered[: max(0, len(numbered) - keep)]:
        shutil.rmtree(path)


def fingerprint(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Tells start models apart: a hash of names, shapes and the first values of each weight."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda item: item[0]):
        values = tensor.detach().flatten()[:256].float().cpu()
        digest.update(f"{name} {tuple(tensor.shape)} ".encode() + values.numpy().tobytes())
    return digest.hexdigest()[:32]


def versions() -> dict[str, Any]:
    """Versions of everything that can change a run's bits."""
    found: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    from suder_ext import build_info  # late: imports of this module stay cheap

    return found | {"threads": torch.get_num_threads(), "suder_ext": build_info()}
