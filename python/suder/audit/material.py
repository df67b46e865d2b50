"""What an audit looks at: some pictures of a folder, with or without captions, and some prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from suder.inputs.as_seen import WHITE, Colour
from suder.inputs.files import DataError
from suder.inputs.pictures import find_pictures, load_picture
from suder.inputs.texts import read_prompts

FEW = 4  # pictures: with fewer there is nobody to be shuffled with


@dataclass(frozen=True)
class Material:
    """
    Attributes:
        pictures: uint8 `[H, W, 3]`.
        names: their paths.
        captions: a true one of each, or None where there are none.
        prompts: to draw of; empty where none were given.
        left_out: what could not be read, with the reason.
    """

    pictures: Sequence[np.ndarray]
    names: Sequence[str]
    captions: Sequence[str] | None
    prompts: Sequence[str]
    left_out: Sequence[tuple[str, str]] = ()


def read_material(
    images: Path,
    captions: Path | None = None,
    prompts: Path | None = None,
    *,
    count: int = 24,
    seed: int = 0,
    background: Colour = WHITE,
) -> Material:
    """`count` pictures of a folder and `count` prompts of a file, chosen by the seed.

    Args:
        captions: line n is of the n-th picture by name.
        prompts: one a line, nothing to do with the pictures.

    Raises:
        DataError: no folder, too few pictures in it, or captions that are not as many as they.
    """
    if not images.is_dir():
        raise DataError(f"--images: there is no folder {images}")
    files, left_out = find_pictures(images)
    lines: list[str] | None = None
    if captions is not None:
        lines, blank = read_prompts(captions)
        if blank or len(lines) != len(files):
            raise DataError(
                f"--captions: {captions} has {len(lines)} texts and {len(blank)} blank lines, "
                f"{images} has {len(files)} pictures; line n is the caption of the n-th by name"
            )
    rng = np.random.default_rng([seed, 41])
    shown: dict[int, np.ndarray] = {}
    for place in rng.permutation(len(files)).tolist():
        if len(shown) == count:
            break
        try:
            shown[place] = load_picture(files[place], background)
        except DataError as error:
            left_out.append((str(files[place]), str(error)))
    if len(shown) < FEW:
        raise DataError(
            f"--images: {images} has {len(shown)} pictures that can be read; takes {FEW} or more"
        )
    places = sorted(shown)
    asked: list[str] = []
    if prompts is not None:
        found = list(dict.fromkeys(read_prompts(prompts).prompts))
        if not found:
            raise DataError(f"--prompts: {prompts} has no prompt in it; it takes one a line")
        asked = [found[i] for i in sorted(rng.permutation(len(found))[:count].tolist())]
    return Material(
        pictures=[shown[place] for place in places],
        names=[str(files[place]) for place in places],
        captions=None if lines is None else [lines[place] for place in places],
        prompts=asked,
        left_out=left_out,
    )
