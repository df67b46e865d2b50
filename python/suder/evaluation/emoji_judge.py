"""Judges the emoji world: a classifier for pictures, an exact grammar for captions.

    caption = thing "," treatment "on" ground

Case, spaces and one closing full stop do not matter. A picture is right if the classifier sees the
thing and the style that were asked for; what it takes for nothing is wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

from suder.evaluation.emoji_classifier import (
    DAMAGES,
    Classifier,
    Seen,
    load_classifier,
    look,
    spoilt,
    to_input,
)
from suder.evaluation.task import Task, known_split
from suder.world import emoji
from suder.world.things import SIZE

FRESH = 2_000_000  # seeds from here on: pictures that the classifier was not trained on


def emoji_task(split: str, n: int = 1000, seed: int = 0) -> Task:
    """`n` prompts and `n` pictures: every combination as often, all of them before any twice.

    "validation" is the third of the unlabelled combinations that runs may be kept from training
    on. Items of one thing form a cluster: its styles share drawings.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    kinds = [
        kind
        for kind in emoji.kinds("unlabelled" if split == "validation" else known_split(split))
        if split != "validation" or emoji.held_back(kind)
    ]
    rng = np.random.default_rng([seed, 44])
    asked = _shuffled(kinds, n, rng)
    shown = _shuffled(kinds, n, rng)
    seeds = FRESH + rng.integers(2**30, size=n)

    def judge_pictures(pictures: np.ndarray, items: Sequence[int]) -> dict[str, np.ndarray]:
        seen = see(pictures)
        wanted = np.array([places(asked[item]) for item in items])
        thing, style = seen.thing == wanted[:, 0], seen.style == wanted[:, 1]
        return {"correct": thing & style, "thing": thing, "style": style & (seen.thing >= 0)}

    def judge_captions(captions: Sequence[str], items: Sequence[int]) -> dict[str, np.ndarray]:
        said = [parse(caption) for caption in captions]
        true = [shown[item] for item in items]
        both = list(zip(said, true, strict=True))
        thing = np.array([one is not None and one.thing == kind.thing for one, kind in both], bool)
        style = np.array([one is not None and one.style == kind.style for one, kind in both], bool)
        return {"correct": thing & style, "thing": thing, "style": style}

    return Task(
        name=f"emoji/{split}",
        prompts=[emoji.prompt(kind) for kind in asked],
        prompt_categories=[treatment(kind) for kind in asked],
        prompt_clusters=[kind.thing for kind in asked],
        pictures=[emoji.draw(kind, int(one)) for kind, one in zip(shown, seeds, strict=True)],
        picture_categories=[treatment(kind) for kind in shown],
        picture_clusters=[kind.thing for kind in shown],
        references=[emoji.prompt(kind) for kind in shown],
        judge_pictures=judge_pictures,
        judge_captions=judge_captions,
    )


def parse(caption: str) -> emoji.Kind | None:
    """The thing and the style that a caption names, or None if it is no such sentence."""
    text = " ".join(caption.strip().removesuffix(".").lower().split())
    thing, comma, style = (part.strip() for part in text.partition(","))
    known = comma and thing in emoji.NAMES and style in emoji.STYLES
    return emoji.Kind(thing, style) if known else None


def see(pictures: np.ndarray) -> Seen:
    """What uint8 `[B, 32, 32, 3]` pictures show, as the trained classifier has it."""
    pictures = np.asarray(pictures)
    if pictures.shape[1:] != (SIZE, SIZE, 3) or pictures.dtype != np.uint8:
        raise ValueError(
            f"pictures must be uint8 [B, {SIZE}, {SIZE}, 3], got {pictures.dtype} {pictures.shape}"
        )
    if not len(pictures):
        return Seen(np.zeros(0, np.int64), np.zeros(0, np.int64))
    return look(_classifier(), pictures)


def accuracy(takes: int = 5) -> dict[str, float]:
    """The judge's own: of the thing, the style and both, on fresh pictures of every combination."""
    kinds = [emoji.Kind(thing, style) for thing in emoji.NAMES for style in emoji.STYLES] * takes
    seen = see(np.stack([emoji.draw(kind, FRESH + at) for at, kind in enumerate(kinds)]))
    true = np.array([places(kind) for kind in kinds])
    thing, style = seen.thing == true[:, 0], seen.style == true[:, 1]
    return {
        "thing": float(thing.mean()),
        "style": float(style.mean()),
        "both": float((thing & style).mean()),
    }


def taken_for_something(n: int = 280) -> dict[str, float]:
    """Of pictures spoilt in each way, the part that the judge takes for some thing."""
    kinds = [emoji.Kind(thing, style) for thing in emoji.NAMES for style in emoji.STYLES]
    generator = torch.Generator().manual_seed(1)
    order = np.random.default_rng(45).permutation(np.arange(n + 4) % len(kinds))
    whole = np.stack([emoji.draw(kinds[row], FRESH + at) for at, row in enumerate(order)])
    damaged = spoilt(to_input(torch.from_numpy(whole)), n, generator)
    shown = ((damaged + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    thing = see(shown.permute(0, 2, 3, 1).numpy()).thing
    ways = np.array([list(DAMAGES)[at % len(DAMAGES)] for at in range(n)])
    return {way: float((thing[ways == way] >= 0).mean()) for way in DAMAGES}


def treatment(kind: emoji.Kind) -> str:
    return kind.style.partition(" ")[0]


def places(kind: emoji.Kind) -> tuple[int, int]:
    return emoji.NAMES.index(kind.thing), emoji.STYLES.index(kind.style)


def _shuffled(kinds: Sequence[emoji.Kind], n: int, rng: np.random.Generator) -> list[emoji.Kind]:
    rounds = -(-n // len(kinds))
    return [kinds[row] for _ in range(rounds) for row in rng.permutation(len(kinds))][:n]


@functools.cache
def _classifier() -> Classifier:
    return load_classifier()
