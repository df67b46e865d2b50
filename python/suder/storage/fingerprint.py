"""Telling bytes apart: a tree hash over all of them, and the versions of what computes with them.

SHA-256 of blocks, then of the blocks' digests: blocks are hashed on all cores, and the result does
not depend on how many there are. About a second a gigabyte on two cores.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

BLOCK = 64 << 20  # bytes
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


def hash_bytes(data: bytes | memoryview) -> bytes:
    """The tree hash of `data`, 32 bytes."""
    view = memoryview(data)
    blocks = [view[at : at + BLOCK] for at in range(0, len(view), BLOCK)]
    if len(blocks) < 2:
        return hashlib.sha256(hashlib.sha256(view).digest()).digest()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = pool.map(lambda block: hashlib.sha256(block).digest(), blocks)
        return hashlib.sha256(b"".join(digests)).digest()


def hash_tensors(named: Iterable[tuple[str, torch.Tensor]], note: str = "") -> str:
    """A hash of every value, shape, dtype and name, and of `note`; in any order of the tensors."""
    digest = hashlib.sha256(note.encode())
    for name, tensor in sorted(named, key=lambda item: item[0]):
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(hash_bytes(flat.view(torch.uint8).numpy().data))
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Of the bytes of one file, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def differing(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The keys whose values are not the same, or that only one of the two has."""
    return sorted(key for key in then | now if then.get(key) != now.get(key))


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
