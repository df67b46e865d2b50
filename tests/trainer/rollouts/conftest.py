"""One short run with rollouts for all tests of them; who changes it takes a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.config_file import load_config


@pytest.fixture(scope="session")
def finished_run(
    lively_model_folder: Path, inputs_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("rollouts") / "run"
    tree = {
        "model": str(lively_model_folder),
        "output": str(run),
        "data": {
            "images": str(inputs_folder / "pictures"),
            "prompts": str(inputs_folder / "prompts.txt"),
            "heldout": 0.25,
        },
        "rounds": 2,
        "inputs_per_round": 3,
        "candidates": 4,
        "sampling": {"max_new_tokens": 6},
        "reward": {"cut_captions": "keep"},  # such a model ends few
        "optimizer": {"lr": 0.003, "warmup_rounds": 0},
        "guard": {"enabled": False},
        "checkpoint": {"rollouts": "parquet"},
    }
    Trainer(load_config(tree), quiet=True).run()
    return run


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "copied"))


@pytest.fixture
def offline(
    finished_run: Path, lively_model_folder: Path, tmp_path: Path
) -> Callable[..., TrainConfig]:
    """`offline("rounds=1", rollouts=FILE)`: settings of a run that learns from that run's."""

    def make(*changes: str, rollouts: Path | None = None, output: str = "again") -> TrainConfig:
        tree = {
            "model": str(lively_model_folder),
            "output": str(tmp_path / output),
            "data": {"rollouts": str(rollouts or finished_run / "rollouts"), "heldout": 0.0},
            "rounds": 1,
            "inputs_per_round": 3,
            "sampling": {"max_new_tokens": 6},
            "reward": {"cut_captions": "keep"},
            "optimizer": {"lr": 0.003, "warmup_rounds": 0},
            "guard": {"enabled": False, "every": 2, "samples": 24},
        }
        return load_config(tree, changes)

    return make
