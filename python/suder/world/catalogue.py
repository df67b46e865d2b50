"""The worlds by name, each as the recipe sees it: words, pictures, and pairs to learn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from suder.world import captions, digits, drawing, emoji, emoji_files, scenes
from suder.world.splits import Split


class World(NamedTuple):
    """`pictures(n, seed)`: uint8 `[n, 32, 32, 3]` without captions, of everything there is.
    `pairs(split, n, seed)`: such pictures and a true caption of each.
    `sources`: whose pictures they are, for a file beside the models that learn from them.
    """

    words: tuple[str, ...]
    pictures: Callable[[int, int], np.ndarray]
    pairs: Callable[[Split, int, int], tuple[np.ndarray, list[str]]]
    sources: str = ""


def world(name: str) -> World:
    """The world of that name; ValueError names the ones there are."""
    if name not in WORLDS:
        raise ValueError(f"no world {name!r}; there are: {', '.join(WORLDS)}")
    return WORLDS[name]


def shapes_pictures(n: int, seed: int) -> np.ndarray:
    """Drawn scenes, every scene of the world as likely."""
    rng = np.random.default_rng([seed, 14])
    every = list(scenes.all_scenes())
    chosen = [every[row] for row in rng.integers(len(every), size=n)]
    return np.stack([drawing.draw(scene, int(rng.integers(2**31))) for scene in chosen])


def shapes_pairs(split: Split, n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Drawn scenes of a split and what is said of them."""
    rng = np.random.default_rng([seed, 15])
    drawn = scenes.scenes(split, n, seed)
    pictures = [drawing.draw(scene, int(rng.integers(2**31))) for scene in drawn]
    return np.stack(pictures), [captions.describe(scene, rng) for scene in drawn]


WORLDS = {
    "shapes": World(captions.WORDS, shapes_pictures, shapes_pairs),
    "digits": World(digits.WORDS, digits.pictures, digits.pairs),
    "emoji": World(emoji.WORDS, emoji.pictures, emoji.pairs, emoji_files.SOURCES),
}
