"""What a prompt or a caption says, by a small grammar of its own.

The captions of training are made by `suder.world.captions`. This parser shares only the vocabulary
with it (names of colours and shapes), so that a mistake in the generator cannot hide itself here.

    statement = thing | counted | thing "and" thing | thing relation thing
    thing     = ("a" | "an" | "one") colour shape
    counted   = "two" colour shape+"s"
    relation  = "left of" | "right of" | "above" | "below"
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from suder.world.things import COLORS, SHAPES, Kind

Relation = Literal["left of", "right of", "above", "below"]
Category = Literal["single", "counting", "two_objects", "position"]

CATEGORIES: tuple[Category, ...] = ("single", "counting", "two_objects", "position")
_RELATIONS: dict[tuple[str, ...], Relation] = {
    ("left", "of"): "left of",
    ("right", "of"): "right of",
    ("above",): "above",
    ("below",): "below",
}
_ARTICLES = frozenset({"a", "an", "one"})


class Statement(NamedTuple):
    """A parsed prompt or caption: its category, its one or two things in the order said."""

    category: Category
    things: tuple[Kind, ...]
    relation: Relation | None = None


def parse(text: str) -> Statement | None:
    """Read `text`, or give None if it is not a whole sentence of the grammar.

    Case, surrounding space and one closing full stop do not matter. Anything else does: a word too
    many, an unknown colour, a plural after "a" or a singular after "two".
    """
    words = text.strip().removesuffix(".").lower().split()
    if len(words) == 3:
        return _counted(words) or _single(words)
    if len(words) < 7:
        return None
    first, joint, second = _thing(words[:3]), tuple(words[3:-3]), _thing(words[-3:])
    if first is None or second is None:
        return None
    if joint == ("and",):
        return Statement("two_objects", (first, second))
    relation = _RELATIONS.get(joint)
    return None if relation is None else Statement("position", (first, second), relation)


def category(prompt: str) -> Category:
    """The category of a prompt; ValueError for a text the grammar does not know."""
    statement = parse(prompt)
    if statement is None:
        raise ValueError(
            f"not a prompt of the shapes world: {prompt!r}; it takes sentences such as "
            "'a red circle', 'two red circles', 'a red circle and a blue square' or "
            "'a red circle left of a blue square'"
        )
    return statement.category


def _single(words: list[str]) -> Statement | None:
    thing = _thing(words)
    return None if thing is None else Statement("single", (thing,))


def _counted(words: list[str]) -> Statement | None:
    number, color, plural = words
    shape = plural.removesuffix("s")
    if number != "two" or plural == shape or color not in COLORS or shape not in SHAPES:
        return None
    return Statement("counting", (Kind(color, shape),) * 2)


def _thing(words: list[str]) -> Kind | None:
    article, color, shape = words
    if article not in _ARTICLES or color not in COLORS or shape not in SHAPES:
        return None
    return Kind(color, shape)
