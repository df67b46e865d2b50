"""An evaluation's result, item by item, so that two models judged on one set can be paired."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from suder.storage.arrays import read_arrays, write_arrays

DIRECTIONS = ("generation", "understanding")


@dataclass(frozen=True)
class Items:
    """One direction's items.

    `inputs`: prompts, or true captions of the pictures shown. `answers`: the captions written
    (empty for generation). `judged["correct"]`: bool `[n]`, other keys are parts of the judgement.
    `pictures`: uint8 `[k, H, W, 3]`, the first k pictures drawn, or shown.
    """

    inputs: list[str]
    answers: list[str]
    categories: list[str]
    clusters: list[str]
    judged: dict[str, np.ndarray]
    pictures: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """bool `[n]`: whether the judge found the answer right."""
        return self.judged["correct"]


@dataclass(frozen=True)
class Evaluation:
    """Both directions' items and the settings that made them."""

    generation: Items
    understanding: Items
    settings: dict[str, Any]

    def accuracy(self) -> dict[str, float]:
        """Fraction right in each direction."""
        return {name: float(getattr(self, name).correct.mean()) for name in DIRECTIONS}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a .npz file, which appears whole or not at all."""
        arrays: dict[str, np.ndarray] = {"settings": np.array(json.dumps(self.settings))}
        for name in DIRECTIONS:
            items: Items = getattr(self, name)
            for field in ("inputs", "answers", "categories", "clusters"):
                arrays[f"{name}/{field}"] = np.array(getattr(items, field), dtype=str)
            for key, values in items.judged.items():
                arrays[f"{name}/judged/{key}"] = values
            arrays[f"{name}/pictures"] = items.pictures
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(target, arrays)


def load_evaluation(path: str | os.PathLike[str]) -> Evaluation:
    """Read what `Evaluation.save` wrote; raises DamagedFile if that is not what is there."""
    arrays = read_arrays(Path(path))

    def items(name: str) -> Items:
        prefix = f"{name}/judged/"
        return Items(
            **{
                field: arrays[f"{name}/{field}"].tolist()
                for field in ("inputs", "answers", "categories", "clusters")
            },
            judged={
                key.removeprefix(prefix): value
                for key, value in arrays.items()
                if key.startswith(prefix)
            },
            pictures=arrays[f"{name}/pictures"],
        )

    return Evaluation(
        items("generation"), items("understanding"), json.loads(str(arrays["settings"]))
    )
