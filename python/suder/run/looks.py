"""What the guard's looks show to people, in `looks/` of a run: small, and few files.

`inputs.json` has the prompts and the pictures to caption; `000020.json` the pictures drawn and the
captions written at the look of round 20, for the same inputs with the same random numbers, and
their rewards as the guard scores them: by the frozen start model.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from suder.guard.chance import planned
from suder.guard.strip import INPUTS, Strip
from suder.guard.watch import Watch
from suder.inputs.files import DataError
from suder.inputs.pictures import load_picture
from suder.settings.config import TrainConfig
from suder.storage.files import finite, write_json
from suder.storage.folders import make_folder

FOLDER = "looks"
SHOWN = 24  # looks of a run that leave a file, and the start's and the last
SIDE = 96  # pixels of a picture, at most


def is_shown(index: int, config: TrainConfig) -> bool:
    """Whether the look of this round is one of those that leave a file."""
    looks, number = (planned(one, config.guard.every) for one in (config.rounds, index))
    return number % -(-looks // SHOWN) == 0 or index == config.rounds


def save_inputs(run: Path, watch: Watch, digests: Mapping[str, str]) -> None:
    """Of the guard's first inputs; a picture that cannot be read any more is left out as null."""
    shown: list[str | None] = []
    for path in watch.inputs["understanding"][:INPUTS]:
        try:
            shown.append(_png(load_picture(path, watch.start.background, digests.get(path))))
        except DataError:
            shown.append(None)
    prompts = watch.inputs["generation"][:INPUTS]
    _write(run, "inputs", {"prompts": prompts, "pictures": shown})


def save_strip(run: Path, index: int, strip: Strip) -> None:
    drawn = [] if strip.pictures is None else [_png(one) for one in strip.pictures]
    rewards = finite({name: list(values) for name, values in strip.rewards.items()})
    look = {"pictures": drawn, "captions": strip.captions, "rewards": rewards}
    _write(run, f"{index:06d}", look)


def _write(run: Path, name: str, value: dict[str, Any]) -> None:
    make_folder(run / FOLDER)
    write_json(run / FOLDER / f"{name}.json", value)


def _png(pixels: np.ndarray) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
