"""What candidates are made for: pictures that are read, prompts that fit the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from suder import ranks
from suder.inputs.files import DataError
from suder.inputs.pictures import load_picture
from suder.models.base import DIRECTIONS, Condition, Direction, UnifiedModel
from suder.storage.shown import named


class Conditions(NamedTuple):
    """What candidates are made for.

    Attributes:
        inputs: paths of the pictures that could be read, or prompts.
        values: pixels `[C, 3, S, S]` of the pictures, or their VQ tokens `[C, I]` where the model
            reads those; or the prompts themselves.
        lost: pictures that could not be read, or that have changed, and prompts that are too long,
            with the reason.
    """

    inputs: tuple[str, ...]
    values: Condition
    lost: tuple[tuple[str, str], ...] = ()


def too_long(model: UnifiedModel, prompt: str) -> str:
    """Why a prompt can be drawn or scored by no picture of this model's, or ""."""
    return next(filter(None, (model.too_long(one, prompt) for one in DIRECTIONS)), "")


def read_conditions(
    model: UnifiedModel,
    direction: Direction,
    inputs: Sequence[str],
    digests: Mapping[str, str] | None = None,
    most: int | None = None,
) -> Conditions:
    """Reads the pictures at these paths, or takes the prompts that fit the model as they are.

    Args:
        digests: what is known of the pictures' contents: another content is as good as none.
        most: read no more than this many.

    Raises:
        DataError: some of the run's processes can read a picture, and others cannot.
    """
    with ranks.each():
        read = _read_conditions(model, direction, inputs, digests, most)
    for other in ranks.gather(read.lost):
        if other != read.lost:
            (path, why), *_ = sorted(set(other) ^ set(read.lost))
            raise DataError(f"{path} can be read by some of the run's processes only: {why}")
    return read


def _read_conditions(
    model: UnifiedModel,
    direction: Direction,
    inputs: Sequence[str],
    digests: Mapping[str, str] | None,
    most: int | None,
) -> Conditions:
    found: list[str] = []
    lost: list[tuple[str, str]] = []
    if direction == "generation":
        for prompt in inputs:
            if len(found) == most:
                break
            if why := too_long(model, prompt):
                lost.append((named(prompt), f"too long: {why}"))
            else:
                found.append(prompt)
        return Conditions(tuple(found), found, tuple(lost))
    pixels: list[torch.Tensor] = []
    for path in inputs:
        if len(found) == most:
            break
        try:
            picture = load_picture(path, model.background, (digests or {}).get(path))
            pixels.append(model.pixels([picture]))
        except DataError as error:
            lost.append((path, str(error)))
            continue
        found.append(path)
    size = model.image_size
    values = torch.cat(pixels) if pixels else torch.zeros(0, 3, size, size)
    if model.reads_tokens:  # encoded once, not in every pass that reads them
        values = model.encode(values)
    return Conditions(tuple(found), values, tuple(lost))
