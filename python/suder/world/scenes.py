"""Scenes and prompts of a split, drawn from a seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from suder.world import captions
from suder.world.splits import Split, draw_kinds, split_of
from suder.world.things import CELLS, COLORS, KINDS, SHAPES, SIZE, Kind, Scene, Thing

__all__ = [
    "COLORS",
    "SHAPES",
    "SIZE",
    "Kind",
    "Scene",
    "Thing",
    "all_scenes",
    "prompts",
    "scenes",
    "split_of",
]


def scenes(split: Split, n: int, seed: int) -> list[Scene]:
    """`n` scenes of the split, drawn with replacement; every place is as likely."""
    rng = np.random.default_rng([seed, 11])
    return [_scene(split, rng) for _ in range(n)]


def _scene(split: Split, rng: np.random.Generator) -> Scene:
    kinds = draw_kinds(split, rng)
    cells = sorted(int(cell) for cell in rng.choice(len(CELLS), len(kinds), replace=False))
    return Scene(tuple(Thing(*kind, cell) for kind, cell in zip(kinds, cells, strict=True)))


def all_scenes() -> Iterator[Scene]:
    """Every scene of the world, singles first: 96 singles, 144 of two alike, 3312 of two unlike."""
    for kind, cell in itertools.product(KINDS, CELLS):
        yield Scene((Thing(*kind, cell),))
    for first, second in itertools.product(KINDS, KINDS):
        for cell, other in itertools.combinations(CELLS, 2):
            yield Scene((Thing(*first, cell), Thing(*second, other)))


def prompts(split: Split, n: int, seed: int) -> list[str]:
    """`n` prompts of the split. None is repeated before every one has been said once.

    Kinds of prompt come in the shares of `scenes`, until the rarer ones run out.
    """
    rng = np.random.default_rng([seed, 12])
    every = list(captions.every_prompt(split))
    said: dict[str, None] = {}
    for _ in range(20 * n):
        if len(said) == min(n, len(every)):
            break
        said.setdefault(captions.prompt(draw_kinds(split, rng), rng))
    rest = [prompt for prompt in every if prompt not in said]
    distinct = [*said, *(rest[i] for i in rng.permutation(len(rest)))]
    return [distinct[i % len(distinct)] for i in range(n)]
