"""The checkpoint that is examined, and what it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from suder.inputs.as_seen import WHITE
from suder.inputs.files import DataError
from suder.inputs.pictures import find_pictures, load_picture
from suder.inputs.texts import read_prompts
from suder.models.base import UnifiedModel
from suder.world.catalogue import shapes_pairs


@dataclass(frozen=True)
class Pairs:
    """Pictures, uint8 `[H, W, 3]`, and a true caption of each; no two captions are equal.

    Attributes:
        own: they are the user's, not shapes that we drew.
    """

    pictures: Sequence[np.ndarray]
    captions: Sequence[str]
    own: bool


@dataclass
class Patient:
    """
    Attributes:
        name: folder, hub name or embedded model.
        picture: of the user's, to go through the VQ model; None: those of the pairs.
        quick: leave out what takes minutes on a large model.
        loaded: the model, once the files have been read.
    """

    name: str
    device: str
    dtype: torch.dtype
    pairs: Pairs
    picture: np.ndarray | None = None
    quick: bool = False
    loaded: UnifiedModel | None = None

    @property
    def model(self) -> UnifiedModel:
        if self.loaded is None:
            raise ValueError("the model is not loaded")
        return self.loaded

    @property
    def parameters(self) -> int:
        return sum(one.numel() for one in self.model.parameters())


def drawn_pairs(count: int) -> Pairs:
    """Shapes and what is said of them, none of which the embedded models have seen together."""
    pictures, captions = shapes_pairs("unlabelled", 4 * count, 0)
    return _distinct(list(pictures), captions, count, own=False)


def read_pairs(images: Path, prompts: Path, count: int) -> Pairs:
    """Pictures of a folder in order of their names, and the line of a file for each.

    Raises:
        DataError: none or one without the other; another number of lines than of pictures.
    """
    if not images.is_dir():
        raise DataError(f"--images: there is no folder {images}")
    files, (lines, blank) = find_pictures(images).files, read_prompts(prompts)
    if blank or len(lines) != len(files):
        raise DataError(
            f"--prompts: {prompts} has {len(lines)} texts and {len(blank)} blank lines, {images} "
            f"has {len(files)} pictures; line n is the caption of the n-th by name"
        )
    if len(files) < 4:
        raise DataError(f"--images: {images} has {len(files)} pictures; takes four or more")
    return _distinct([load_picture(file, WHITE) for file in files[: 2 * count]], lines, count, True)


def _distinct(
    pictures: Sequence[np.ndarray], captions: Sequence[str], count: int, own: bool
) -> Pairs:
    first = {text: i for i, text in reversed(list(enumerate(captions[: len(pictures)])))}
    chosen = sorted(first.values())[:count]
    return Pairs([pictures[i] for i in chosen], [captions[i] for i in chosen], own)
