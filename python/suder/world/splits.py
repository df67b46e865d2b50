"""Which combinations of things a model may learn from.

A combination is an unordered pair of different kinds of thing, or two of a kind. Each belongs to
one split, whatever its places and words:

    supervised   pictures with captions, for the warm-up
    unlabelled   pictures alone, prompts alone, for the self-improvement
    test         never trained on; only the VQ model saw such pictures, without words

Single things are all supervised. The unlabelled split has them, too, so that each can be asked for
there; the test split has none.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from typing import Literal

import numpy as np

from suder.world.things import KINDS, Kind

Split = Literal["supervised", "unlabelled", "test"]
Combination = tuple[Kind, Kind]

SPLITS: tuple[Split, ...] = ("supervised", "unlabelled", "test")
UNSEEN: tuple[Split, ...] = ("test",)  # without single things
SHARES = (0.35, 0.30, 0.35)
# Shares of a draw of scenes or prompts. Pairs carry the difficulty, so they are most of it.
SINGLE, COUNTING = 0.10, 0.15


def split_of(pair: Combination) -> Split:
    """The split of a combination: the same for both orders, on every machine."""
    first, second = sorted(pair)
    return _assignment()[first, second]


@functools.cache
def combinations(split: Split, counting: bool) -> tuple[Combination, ...]:
    """The split's pairs of different kinds, or (`counting`) its pairs of one kind twice."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    unlike, alike = _families()
    return tuple(pair for pair in (alike if counting else unlike) if split_of(pair) == split)


def draw_kinds(split: Split, rng: np.random.Generator) -> tuple[Kind, ...]:
    """One kind (any), or one of the split's combinations in a random order."""
    lot = rng.random()
    if split in UNSEEN:
        lot = SINGLE + (1 - SINGLE) * lot
    if lot < SINGLE:
        return (KINDS[rng.integers(len(KINDS))],)
    pairs = combinations(split, counting=bool(lot < SINGLE + COUNTING))
    first, second = pairs[rng.integers(len(pairs))]
    return (first, second) if rng.random() < 0.5 else (second, first)


def _families() -> tuple[list[Combination], list[Combination]]:
    kinds = sorted(KINDS)
    return list(itertools.combinations(kinds, 2)), [(kind, kind) for kind in kinds]


@functools.cache
def _assignment() -> dict[Combination, Split]:
    """Sort each family of combinations by a hash and cut it by `SHARES`: exact shares."""
    assigned: dict[Combination, Split] = {}
    for family in _families():
        pairs = sorted(family, key=_hash)
        start = 0
        for split, share in zip(SPLITS, np.cumsum(SHARES), strict=True):
            stop = round(len(pairs) * share)
            assigned.update(dict.fromkeys(pairs[start:stop], split))
            start = stop
    return assigned


def _hash(pair: Combination) -> bytes:
    return hashlib.sha256(" ".join(itertools.chain(*pair)).encode()).digest()
