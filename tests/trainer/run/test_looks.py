"""What the guard's looks leave for people: the same inputs at every look, in few small files."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import suder.run.looks
from suder.inputs.pictures import load_picture
from suder.method.rewards import DualReward
from suder.run.looks import SHOWN, SIDE, is_shown, save_strip
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.storage.files import read_jsonl

Make = Callable[..., TrainConfig]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_looks_of_a_run(make_config: Make) -> None:
    config = make_config("rounds=3", "guard.action=watch")  # looks at 0, 2 and the last
    trainer = Trainer(config, quiet=True)
    trainer.run()
    folder = Path(config.output) / "looks"
    names = ["000000.json", "000002.json", "000003.json", "inputs.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    asked = read(folder / "inputs.json")
    assert asked["prompts"] == list(trainer.inputs.watched_prompts[:8])
    for at in names[:-1]:
        look = read(folder / at)
        assert len(look["pictures"]) == len(asked["prompts"])
        assert len(look["captions"]) == len(asked["pictures"])
    watch = trainer.oversight.watch
    assert watch is not None
    last = [base64.b64decode(one) for one in read(folder / "000003.json")["pictures"]]
    shown = [np.asarray(Image.open(io.BytesIO(one))) for one in last]
    assert np.array_equal(np.stack(shown), watch.strip.pictures)
    scorer = DualReward(watch.start)  # the frozen start, whatever round it is
    told = read(folder / "000003.json")
    pictures = [load_picture(path) for path in trainer.inputs.watched_images[:8]]
    by_hand = {
        "generation": scorer.generation(asked["prompts"], shown),
        "understanding": scorer.understanding(pictures, told["captions"]),
    }
    assert told["rewards"].keys() == by_hand.keys()
    for direction, values in by_hand.items():
        given = [np.nan if one is None else one for one in told["rewards"][direction]]
        assert np.allclose(given, values.numpy(), atol=1e-5, equal_nan=True), direction
    first = read_jsonl(Path(config.output) / "metrics.jsonl")[0]
    assert first["guard/dark_band/generation"] > 0
    before = {name: (folder / name).read_bytes() for name in names}
    Trainer.resume(config.output, quiet=True, start_over=True).run()
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_they_are_few_and_small(make_config: Make, tmp_path: Path) -> None:
    for rounds in (1, 2, 47, 240, 1000, 50001):
        config = make_config(f"rounds={rounds}", "guard.every=2")
        looks = [*range(0, rounds + 1, 2), *([rounds] if rounds % 2 else [])]
        shown = [at for at in looks if is_shown(at, config)]
        assert {shown[0], shown[-1]} == {0, rounds}
        assert len(shown) <= SHOWN + 2
    noise = np.random.default_rng(0).integers(0, 256, (8, 384, 384, 3), dtype=np.uint8)
    save_strip(tmp_path, 20, suder.run.looks.Strip(noise, ("a",) * 8))
    path = tmp_path / "looks" / "000020.json"
    assert path.stat().st_size < 500_000
    assert Image.open(io.BytesIO(base64.b64decode(read(path)["pictures"][0]))).size == (SIDE, SIDE)


@pytest.mark.parametrize("name", ["000002.json", "notes.json"])
def test_only_what_the_run_made_is_deleted(make_config: Make, name: str) -> None:
    config = make_config("rounds=2")
    Trainer(config, quiet=True).run()
    folder = Path(config.output) / "looks"
    (folder / name).write_text("mine")
    suder.run.trainer.forget(Path(config.output), config)
    assert folder.exists() is (name == "notes.json")
