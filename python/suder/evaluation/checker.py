"""The exact judge of the shapes world: is a picture, or a caption, right?

It reads a picture back into its scene (`reader`) and a text into what it says (`grammar`), and
compares the two. Evaluation only: nothing that trains may import it, which
tests/trainer/test_import_graph.py proves.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from suder.evaluation.grammar import CATEGORIES, Category, Statement, category, parse
from suder.evaluation.reader import read_picture, read_pictures
from suder.world.things import Kind, Scene, Thing

__all__ = [
    "CATEGORIES",
    "Category",
    "Verdict",
    "caption_correct",
    "category",
    "judge_picture",
    "picture_correct",
    "read_picture",
    "read_pictures",
    "scene_category",
]


class Verdict(NamedTuple):
    """A picture against its prompt, whole and in parts.

    `shapes`: the shapes asked for and no other are there, of whatever colours.
    `binding`: each of them has the colour asked for. `correct`: that, and the relation holds.
    """

    correct: bool
    shapes: bool
    binding: bool


def judge_picture(scene: Scene | None, prompt: str) -> Verdict:
    """Judge what was read from a picture (None: nothing readable) against the prompt's words."""
    statement = parse(prompt)
    if statement is None:
        category(prompt)  # raises, with the words that are not a prompt
    if scene is None or statement is None:
        return Verdict(False, False, False)
    shapes = Counter(thing.shape for thing in scene.things)
    return Verdict(
        correct=_true_and_complete(statement, scene),
        shapes=shapes == Counter(thing.shape for thing in statement.things),
        binding=_named(scene) == Counter(statement.things),
    )


def picture_correct(picture: np.ndarray, prompt: str) -> bool:
    """Whether a uint8 `[32, 32, 3]` picture shows exactly what the prompt asks for."""
    return judge_picture(read_picture(picture), prompt).correct


def caption_correct(caption: str, scene: Scene) -> bool:
    """Whether a caption is a sentence, true of the scene, and leaves no thing out."""
    statement = parse(caption)
    return statement is not None and _true_and_complete(statement, scene)


def scene_category(scene: Scene) -> Category:
    """The category in which captions of this scene are counted (a scene states no relation)."""
    if len(scene.things) == 1:
        return "single"
    first, second = scene.things
    return "counting" if first.kind == second.kind else "two_objects"


def _true_and_complete(statement: Statement, scene: Scene) -> bool:
    if _named(scene) != Counter(statement.things):
        return False
    if statement.relation is None:
        return True
    one, other = scene.things
    return any(
        _holds(statement.relation, first, second)
        for first, second in ((one, other), (other, one))
        if (first.kind, second.kind) == statement.things
    )


def _holds(relation: str, first: Thing, second: Thing) -> bool:
    """Whether `first` is `relation` `second` on the 2 x 2 grid, cells numbered row by row."""
    row, column = divmod(first.cell, 2)
    other_row, other_column = divmod(second.cell, 2)
    return {
        "left of": column < other_column,
        "right of": column > other_column,
        "above": row < other_row,
        "below": row > other_row,
    }[relation]


def _named(scene: Scene) -> Counter[Kind]:
    return Counter(thing.kind for thing in scene.things)
