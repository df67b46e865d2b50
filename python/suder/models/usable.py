"""What a user may ask for and cannot have, found before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import torch


def check_device(device: str | torch.device) -> None:
    """Raises ValueError for a device that this machine, or this torch, has not."""
    try:
        asked = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device: there is no {str(device)!r}; cpu, cuda, cuda:1, ...") from None
    if asked.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (asked.index or 0) >= count:
            has = f"has {count} GPUs" if torch.version.cuda else "is built without CUDA"
            raise ValueError(
                f"device: {asked} is not to be had: torch {torch.__version__} {has} here; use cpu"
            )
    elif asked.type != "cpu":
        try:
            torch.empty(0, device=asked)
        except (RuntimeError, NotImplementedError, AssertionError, ImportError) as error:
            first = str(error).partition("\n")[0]
            raise ValueError(f"device: {asked} is not to be had here: {first}") from None


def check_no_run(path: Path) -> None:
    """Raises ValueError for the folder of a run, which holds models and is none."""
    if (path / "config.yaml").is_file() and not (path / "config.json").exists():
        models = [str(path / name) for name in ("model", "best") if (path / name).is_dir()]
        which = f"its model is {models[0]}" if models else "it has no model yet"
        raise ValueError(f"model: {path} is the folder of a run; {which}")
