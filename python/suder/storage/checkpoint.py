"""States to go on from: the last two, each with a checksum, and the one that is whole is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from suder.storage.files import DamagedFile, read_tensors, write_tensors
from suder.storage.folders import make_folder

KEPT = 2
State = tuple[dict[str, torch.Tensor], dict[str, Any]]


def save_state(
    run: Path, index: int, tensors: dict[str, torch.Tensor], meta: dict[str, Any]
) -> None:
    """The whole state after a round in one file; of those before it one is kept.

    Args:
        meta: must have the key `run`, which `load_state` asks for.
    """
    make_folder(run / "state")
    write_tensors(_path(run, index), tensors, {"round": index, **meta}, durable=True)
    for old in [path for path in state_files(run) if int(path.stem) <= index][:-KEPT]:
        old.unlink()


def load_state(run: Path, owner: str) -> tuple[State | None, list[str]]:
    """The latest state that is whole, and what is wrong with each that is later.

    None if there is no whole one. `owner` is what `meta["run"]` must be.
    """
    faults = []
    for path in reversed(state_files(run)):
        try:
            state = read_tensors(path)
        except (DamagedFile, OSError) as error:
            faults.append(str(error))
            continue
        if state[1].get("run") == owner:
            return state, faults
        faults.append(f"{path} is the state of another run")
    return None, faults


def forget_states(run: Path) -> None:
    for path in state_files(run):
        path.unlink()


def state_files(run: Path) -> list[Path]:
    """In the order of their rounds."""
    found = (run / "state").glob("*.safetensors")
    return sorted((path for path in found if path.stem.isdigit()), key=lambda path: int(path.stem))


def _path(run: Path, index: int) -> Path:
    return run / "state" / f"{index:06d}.safetensors"
