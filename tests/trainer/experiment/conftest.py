"""A tiny recipe, and the folders of its cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from suder.experiment.plan import CONTROL, Cell

RECIPE = Path(__file__).parents[3] / "recipes" / "experiment.yaml"
TINY: dict[str, Any] = {
    "starts": ["shapes", "shapes-2"],
    "seeds": [1, 2],
    "inputs": {"pictures": 24, "prompts": 24},
    "evaluation": {"n": 12, "checkpoint_n": 6, "candidates": 2, "temperatures": [1.0, 0.5]},
    "common": {
        "rounds": 2,
        "inputs_per_round": 2,
        "candidates": 2,
        "sampling": {"max_new_tokens": 4},
        "reward": {"cut_captions": "keep"},
        "guard": {"every": 2, "inputs": 2},
        "checkpoint": {"every": 1, "keep": 9},
    },
    "arms": {CONTROL: {}, "grpo": {}, "high": {"optimizer": {"lr": 0.01}}},
}


@pytest.fixture
def make_recipe(tmp_path: Path) -> Callable[..., Path]:
    def make(**changes: Any) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
        return path

    return make


def folder_of(cell: Cell, out: Path) -> Path:
    folder = out / "cells" / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
