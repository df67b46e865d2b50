"""An evaluation's result, item by item, so that two models judged on one set can be paired."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from suder.storage.arrays import read_arrays, write_arrays
from suder.storage.files import json_text

# More is not read: each category has its interval, whose memory goes with the items.
MOST_ITEMS, MOST_CATEGORIES = 100_000, 100
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
        arrays: dict[str, np.ndarray] = {"settings": np.array(json_text(self.settings))}
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
    """Read what `Evaluation.save` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, or damaged; the message names the file.
    """
    arrays = read_arrays(Path(path))
    try:
        settings = _settings(str(arrays["settings"]))
        return Evaluation(_items(arrays, "generation"), _items(arrays, "understanding"), settings)
    except KeyError as missing:
        raise ValueError(f"{path} is no evaluation of suder's: it has no {missing}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no evaluation of suder's: {error}") from None


def kept_evaluation(file: Path, settings: dict[str, Any]) -> Evaluation | None:
    """The evaluation in `file` if it is there, whole, and made by these very settings.

    Args:
        settings: from `evaluate.settings_of`: weights, inputs and how the model is asked.
    """
    if not file.is_file():
        return None
    try:
        evaluation = load_evaluation(file)
    except ValueError:  # damaged: made anew
        return None
    return evaluation if evaluation.settings == settings else None


def _settings(text: str) -> dict[str, Any]:
    settings = json.loads(text)
    wanted = {"task": str, "seed": int, "greedy": bool}
    if not isinstance(settings, dict) or any(
        not isinstance(settings[name], kind) for name, kind in wanted.items()
    ):
        raise ValueError(f"its settings are {text[:200]}")
    return settings


def _items(arrays: dict[str, np.ndarray], name: str) -> Items:
    prefix = f"{name}/judged/"
    fields = ("inputs", "answers", "categories", "clusters")
    texts = {field: arrays[f"{name}/{field}"] for field in fields}
    judged = {
        key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)
    }
    pictures, n = arrays[f"{name}/pictures"], len(judged["correct"])
    for field, values in texts.items():
        lengths = (n, 0) if field == "answers" and name == "generation" else (n,)
        if values.ndim != 1 or values.dtype.kind != "U" or len(values) not in lengths:
            raise ValueError(f"{name}/{field} is {values.dtype} {values.shape}, of {n} items")
    for field, values in judged.items():
        if values.dtype != bool or values.shape != (n,):
            raise ValueError(f"{prefix}{field} is {values.dtype} {values.shape}, of {n} items")
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
        raise ValueError(f"{name}/pictures is {pictures.dtype} {pictures.shape}")
    if len(pictures) > n or 0 in pictures.shape[1:3]:
        raise ValueError(f"{name}/pictures is {pictures.shape}, of {n} items")
    lists = {field: values.tolist() for field, values in texts.items()}
    kinds = len(set(lists["categories"]))
    if not 0 < n <= MOST_ITEMS or kinds > MOST_CATEGORIES:
        raise ValueError(f"{name} has {n} items of {kinds} categories")
    return Items(**lists, judged=judged, pictures=pictures)
