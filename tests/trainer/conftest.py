"""A random Janus small enough for a round to take a tenth of a second, and inputs for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from suder.config import TrainConfig
from suder.config_file import load_config
from suder.pretrain.architecture import Sizes, build_janus

WORDS = ("a", "red", "blue", "green", "circle", "square", "and", "two")
PROMPTS = ("a red circle", "a blue square", "two green circle", "a red square and a blue circle")
# 16 pixels in patches of 8: 4 image tokens, the fewest that are not all in one row.
SIZES = Sizes(
    image=16,
    patch=8,
    hidden=32,
    layers=1,
    heads=2,
    mlp=32,
    vision_hidden=32,
    vision_layers=1,
    vision_heads=2,
    codebook=32,
    vq_multiplier=(1, 1, 1, 1),
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def random_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model in the HF format."""
    folder = tmp_path_factory.mktemp("model")
    model, processor = build_janus(WORDS, seed=3, sizes=SIZES)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def inputs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 pictures of noise in `pictures/`, 12 prompts in `prompts.txt`."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(5)
    for number in range(12):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number:02d}.png")
    prompts = [f"{prompt} {word}" for prompt in PROMPTS for word in ("red", "blue", "two")]
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def make_config(
    random_model_folder: Path, inputs_folder: Path, tmp_path: Path
) -> Callable[..., TrainConfig]:
    """`make_config("rounds=3", ..., output="name")`: settings of a run that takes a second."""

    def make(*changes: str, output: str = "run") -> TrainConfig:
        tree: dict[str, Any] = {
            "model": str(random_model_folder),
            "output": str(tmp_path / output),
            "data": {
                "images": str(inputs_folder / "pictures"),
                "prompts": str(inputs_folder / "prompts.txt"),
                "heldout": 0.25,
            },
            "rounds": 2,
            "inputs_per_round": 3,
            "candidates": 4,
            "sampling": {"max_new_tokens": 6},
            "optimizer": {"lr": 0.003, "warmup_rounds": 0},
            "guard": {"every": 2},
        }
        return load_config(tree, changes)

    return make
