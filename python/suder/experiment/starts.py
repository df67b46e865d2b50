"""Which weights a start model's name stands for: they may be trained again under it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from suder.models.find import find_model
from suder.storage.fingerprint import hash_file

WEIGHTS = ("*.safetensors", "*.ckpt")


def weights_of(start: str) -> str:
    """SHA-256 of the files of weights of a start model, read again only where they have changed.

    Raises:
        OSError: there is no such model.
    """
    folder = find_model(start).folder
    files = sorted(path for kind in WEIGHTS for path in folder.glob(kind))
    digest = hashlib.sha256()
    for path in files:
        stat = path.stat()
        known = _digest(path.resolve(), stat.st_mtime_ns, stat.st_size)
        digest.update(f"{path.name} {known}\n".encode())
    return digest.hexdigest()


@lru_cache
def _digest(path: Path, changed: int, size: int) -> str:
    return hash_file(path)
