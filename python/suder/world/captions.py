"""What is said of a scene, and what may be asked for.

    single       a red circle
    counting     two red circles
    two objects  a red circle and a blue square
    position     a red circle left of a blue square   (left of, right of, above, below)

Positions hold between rows and columns: of two things on a diagonal, one is both above the other
and to a side of it. A caption says all it can say in few words: the position of two things in one
row or column, and "and" of two on a diagonal. Were "and" said of any two things, a model could
always be right by saying less.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from suder.world.splits import UNSEEN, Split, combinations
from suder.world.things import COLORS, KINDS, SHAPES, Kind, Scene, Thing

RELATIONS = ("left of", "right of", "above", "below")
POSITION = 0.5  # share of position prompts among those for two different things

WORDS = (
    "a",
    "two",
    "and",
    "left",
    "right",
    "of",
    "above",
    "below",
    *COLORS,
    *SHAPES,
    *(f"{shape}s" for shape in SHAPES),
)


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """A true and complete caption; which of two things is named first is drawn from `rng`."""
    if len(scene.things) == 1:
        return single(scene.things[0].kind)
    first, second = scene.things
    if first.kind == second.kind:
        return counting(first.kind)
    if rng.random() < 0.5:
        first, second = second, first
    holding = relations(first, second)
    if len(holding) > 1:
        return both(first.kind, second.kind)
    return position(first.kind, holding[0], second.kind)


def relations(first: Thing, second: Thing) -> list[str]:
    """What holds of `first` towards `second`: one relation, or two on a diagonal."""
    (row, column), (other_row, other_column) = divmod(first.cell, 2), divmod(second.cell, 2)
    truth = {
        "left of": column < other_column,
        "right of": column > other_column,
        "above": row < other_row,
        "below": row > other_row,
    }
    return [relation for relation in RELATIONS if truth[relation]]


def every_prompt(split: Split) -> Iterator[str]:
    """Every prompt of the split once: singles, counting, then pairs in both orders."""
    if split not in UNSEEN:
        yield from (single(kind) for kind in KINDS)
    yield from (counting(kind) for kind, _ in combinations(split, counting=True))
    for pair in combinations(split, counting=False):
        for first, second in itertools.permutations(pair):
            yield both(first, second)
            yield from (position(first, relation, second) for relation in RELATIONS)


def prompt(kinds: tuple[Kind, ...], rng: np.random.Generator) -> str:
    """One of the prompts that ask for these kinds in this order."""
    if len(kinds) == 1:
        return single(kinds[0])
    first, second = kinds
    if first == second:
        return counting(first)
    if rng.random() >= POSITION:
        return both(first, second)
    return position(first, RELATIONS[rng.integers(len(RELATIONS))], second)


def single(kind: Kind) -> str:
    return f"a {kind.color} {kind.shape}"


def counting(kind: Kind) -> str:
    return f"two {kind.color} {kind.shape}s"


def both(first: Kind, second: Kind) -> str:
    return f"{single(first)} and {single(second)}"


def position(first: Kind, relation: str, second: Kind) -> str:
    return f"{single(first)} {relation} {single(second)}"
