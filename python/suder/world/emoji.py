"""Pictures people know: things from four sets of emoji ("apple, outlined on blue").

    painted    as three of the sets have it, in colour and without outlines
    outlined   as the fourth has it, colour inside black lines
    grey       painted, without the colour
    sketched   outlined, on pale grey

A style is one of these on one of four grounds. Of a thing's 16 combinations half are captioned, a
quarter is seen as pictures alone and a quarter is never trained on. Of each treatment a thing has
two captioned, one and one, and of each ground: what is never trained on is composed of what is
known. A picture is one of the drawings at one of many sizes and places.

The three painted sets are no styles of their own: of 32 pixels, a classifier trained on half of all
drawings told the other half's sets apart hardly better than chance. Nor are treatments alone
enough: with two of a thing's four captioned, a model learnt that the thing is not in the others.
"""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from suder.world.emoji_files import CANVAS, SETS, read_drawings
from suder.world.emoji_things import THINGS
from suder.world.splits import SPLITS, Split
from suder.world.things import SIZE

TREATMENTS = ("painted", "outlined", "grey", "sketched")
GROUNDS = {
    "white": (255, 255, 255),
    "blue": (140, 190, 255),
    "pink": (255, 170, 190),
    "green": (150, 225, 150),
}
STYLES = tuple(f"{treatment} on {ground}" for treatment in TREATMENTS for ground in GROUNDS)
NAMES = tuple(THINGS)
# The last are those of the question that a model judges its own pictures by, and its answers.
_ASKED = ("does", "this", "picture", "show", "?", "answer", "yes", "or", "no")
WORDS = (*NAMES, *TREATMENTS, *GROUNDS, "on", ",", *_ASKED)
# The picture is a square of the 96 pixels' canvas, whose middle 72 hold the drawing.
_SIDE = (76.0, 84.0)
_SHIFT = 2.0
_LUMINANCE = (0.299, 0.587, 0.114)
_PALER = 0.35  # exponent that leaves black lines black and lifts what is inside them


class Kind(NamedTuple):
    """A thing in a style, which is a treatment and a ground."""

    thing: str
    style: str


def prompt(kind: Kind) -> str:
    return f"{kind.thing}, {kind.style}"


def kinds(split: Split) -> tuple[Kind, ...]:
    """The split's combinations, in the order of the things."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    every = [Kind(thing, style) for thing in NAMES for style in STYLES]
    return tuple(kind for kind in every if split_of(kind) == split)


def split_of(kind: Kind) -> Split:
    """The split of a combination: the same on every machine."""
    return _assignment()[kind]


def held_back(kind: Kind) -> bool:
    """Whether it is of the third of the unlabelled combinations that validation keeps."""
    return split_of(kind) == "unlabelled" and _hash(f"validation {prompt(kind)}")[0] < 256 / 3


def draw(kind: Kind, seed: int) -> np.ndarray:
    """uint8 `[32, 32, 3]`. The same kind and seed give the same picture."""
    rng = np.random.default_rng([seed, 41])
    half = rng.uniform(*_SIDE) / 2
    x, y = CANVAS / 2 + rng.uniform(-_SHIFT, _SHIFT, 2)
    treatment, _, ground = kind.style.partition(" on ")
    drawing = Image.fromarray(drawings()[NAMES.index(kind.thing), _drawing_set(treatment, rng)])
    box = (x - half, y - half, x + half, y + half)
    small = np.asarray(drawing.resize((SIZE, SIZE), Image.Resampling.BOX, box=box), np.float32)
    cover = small[..., 3:] / 255
    color = treated(small[..., :3], treatment)
    behind = np.array(GROUNDS[ground], np.float32)
    return (color * cover + behind * (1 - cover)).round().astype(np.uint8)


def treated(color: np.ndarray, treatment: str) -> np.ndarray:
    """Float `[..., 3]` in [0, 255], as the treatment has it."""
    if treatment in ("painted", "outlined"):
        return color
    grey: np.ndarray = (color @ np.array(_LUMINANCE, color.dtype))[..., None].repeat(3, -1)
    return grey if treatment == "grey" else 255 * (grey / 255) ** _PALER


def _drawing_set(treatment: str, rng: np.random.Generator) -> int:
    outlined = SETS.index("openmoji")
    if treatment in ("outlined", "sketched"):
        return outlined
    painted = [place for place in range(len(SETS)) if place != outlined]
    return painted[rng.integers(len(painted))]


def pictures(n: int, seed: int) -> np.ndarray:
    """`n` pictures of what may be trained on; the test's combinations stay unseen."""
    return _drawn(kinds("supervised") + kinds("unlabelled"), n, np.random.default_rng([seed, 42]))[
        0
    ]


def pairs(split: Split, n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """`n` pictures of a split, every combination as often, and what each is called."""
    found, named = _drawn(kinds(split), n, np.random.default_rng([seed, 43]))
    return found, [prompt(kind) for kind in named]


def _drawn(
    every: tuple[Kind, ...], n: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[Kind]]:
    """In a random order, all of them before any twice."""
    chosen = [
        every[row] for start in range(0, n, len(every)) for row in rng.permutation(len(every))
    ]
    seeds = rng.integers(2**31, size=n)
    named = chosen[:n]
    found = [draw(kind, int(seed)) for kind, seed in zip(named, seeds, strict=True)]
    return np.stack(found), named


@functools.cache
def drawings() -> np.ndarray:
    """uint8 RGBA `[things, sets, 96, 96, 4]`, rendered once a process."""
    return read_drawings(tuple(THINGS.values()))


@functools.cache
def _assignment() -> dict[Kind, Split]:
    """A Latin square of treatments and grounds, turned by the thing's place in a hash's order."""
    quarters: tuple[Split, ...] = ("supervised", "supervised", "unlabelled", "test")
    place: dict[Kind, Split] = {}
    for turn, thing in enumerate(sorted(NAMES, key=_hash)):
        for at, style in enumerate(STYLES):
            row, column = divmod(at, len(GROUNDS))
            place[Kind(thing, style)] = quarters[(row + column + turn) % len(quarters)]
    return place


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
