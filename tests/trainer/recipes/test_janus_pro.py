"""The recipes of Janus-Pro. What its owner is told to type, docs/janus-pro.md: tests/docs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import JanusForConditionalGeneration, JanusProcessor

from benchmarks.rounds.shapes import published_config
from suder.cli import main
from suder.run.plan import plan
from suder.settings.config import TrainConfig
from suder.settings.config_file import load_config
from tests.conftest import ROOT
from tests.trainer.published import IMAGES, write_checkpoint, write_processor

# Of random weights every caption is cut, and of few inputs none can be set aside for the guard.
SMALL = ("device=cpu", "rounds=2", "inputs_per_round=2", "candidates=2", "guard.samples=4",
         "reward.cut_captions=keep", "sampling.max_new_tokens=8")  # fmt: skip
CARD = 80 * 2**30


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """`data/` as the recipes name it."""
    folder = tmp_path / "data"
    (folder / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(5)
    for number in range(20):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number:02d}.png")
    prompts = [f"a red circle beside {number} blue squares" for number in range(20)]
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")
    return folder


def recipe(name: str, *changes: str) -> TrainConfig:
    return load_config(ROOT / "recipes" / f"{name}.yaml", changes)


@pytest.mark.parametrize(
    ("name", "shape", "processes"),
    [("janus-pro-1b", "1b", 1), ("janus-pro-7b-lora", "7b", 1), ("janus-pro-7b-8gpu", "7b", 8)],
)
def test_a_recipe_fits_its_cards(
    inputs: Path, tmp_path: Path, name: str, shape: str, processes: int
) -> None:
    """Of the published sizes, without weights; a GPU holds less, its keys in 16 bits."""
    model = tmp_path / shape
    write_processor(model)
    place = JanusProcessor.from_pretrained(model).tokenizer.convert_tokens_to_ids(IMAGES[2])
    published_config(shape, place).save_pretrained(model)
    data = (f"data.images={inputs / 'pictures'}", f"data.prompts={inputs / 'prompts.txt'}")
    said = plan(recipe(name, f"model={model}", "device=cpu", *data), processes)
    assert 10 * 2**30 < said.total < CARD


@pytest.mark.parametrize("name", ["janus-pro-7b-lora", "janus-pro-7b-8gpu"])
def test_a_recipe_runs_on_a_small_model(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The third is that of the tutorial, which tests/docs runs."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "small")
    command = ["train", str(ROOT / "recipes" / f"{name}.yaml"), "model=small", *SMALL, "--quiet"]
    assert main(command) == 0
    found = JanusForConditionalGeneration.from_pretrained(f"runs/{name}/model")
    assert next(found.parameters()).dtype == torch.bfloat16
