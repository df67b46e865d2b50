"""A phase of a round is a file: what is on disk is not done again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from suder import ranks
from suder.run.folder import PHASES
from suder.storage.files import DamagedFile, read_tensors

T = TypeVar("T")
Tensors = dict[str, torch.Tensor]


def phase(path: Path, make: Callable[[], T], save: Callable[[Path, T], Any],
          load: Callable[[Path], T]) -> T:  # fmt: skip
    """What `make` returns, from the file if an earlier life of this run got as far.

    The first of several processes reads and writes; `make` is called in all of them.
    """
    there = ranks.from_first(lambda: load(path) if path.exists() else None)
    if there is not None:
        return there
    value = make()
    with ranks.each():
        if ranks.first():
            save(path, value)
    return value


def drop_damaged(folder: Path) -> list[str]:
    """Deletes phases that cannot be read, which are then made again; says what was wrong."""
    for name in PHASES:
        path = folder / f"{name}.safetensors"
        try:
            if path.exists():
                read_tensors(path)
        except DamagedFile as error:
            drop_from(folder, name)
            return [f"{error}; it is made again, and what follows from it"]
    return []


def drop_from(folder: Path, first: str) -> None:
    """Deletes a phase and those that follow from it; the last goes first."""
    for name in reversed(PHASES[PHASES.index(first) :]):
        (folder / f"{name}.safetensors").unlink(missing_ok=True)
