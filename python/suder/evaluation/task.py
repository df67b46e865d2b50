"""What a model is judged on: prompts and pictures it has not seen, and who judges the answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from suder.evaluation.checker import caption_correct, category, judge_picture, scene_category
from suder.evaluation.grammar import parse
from suder.evaluation.reader import read_pictures
from suder.world.captions import describe
from suder.world.drawing import draw
from suder.world.scenes import prompts, scenes
from suder.world.splits import SPLITS, Split, split_of
from suder.world.things import Kind, Scene

PictureJudge = Callable[[np.ndarray, Sequence[int]], dict[str, np.ndarray]]
CaptionJudge = Callable[[Sequence[str], Sequence[int]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Task:
    """Inputs of both directions and their judges.

    `prompts` and `pictures` (uint8 `[H, W, 3]` each) are the inputs; each has a category and a
    cluster (items of one cluster are not independent and are resampled together).
    `judge_pictures(pictures, items)` and `judge_captions(captions, items)` judge answers to the
    inputs of those numbers and return bool `[len(items)]` under "correct" and, if the judge sees
    more, under other names ("shapes", "binding").
    `references` are true captions of the pictures, shown in reports and never compared with.
    `nearly_greedy` is the temperature that stands for greedy drawing where prompts are so few that
    their greedy pictures would be a handful of coin flips; None where they are many.
    """

    name: str
    prompts: Sequence[str]
    prompt_categories: Sequence[str]
    prompt_clusters: Sequence[str]
    pictures: Sequence[np.ndarray]
    picture_categories: Sequence[str]
    picture_clusters: Sequence[str]
    references: Sequence[str]
    judge_pictures: PictureJudge
    judge_captions: CaptionJudge
    nearly_greedy: float | None = None

    def digest(self) -> str:
        """SHA-256 of all inputs, in their order, with their categories and clusters."""
        found = hashlib.sha256()
        for part in (self.prompts, self.prompt_categories, self.prompt_clusters, self.references,
                     self.picture_categories, self.picture_clusters):  # fmt: skip
            found.update(repr(list(map(str, part))).encode())
        for picture in self.pictures:
            found.update(repr(picture.shape).encode() + picture.tobytes())
        return found.hexdigest()


def shapes_task(split: str, n: int = 1000, seed: int = 0) -> Task:
    """`n` prompts and `n` pictures of a split of the shapes world, judged by the exact checker.

    Every distinct prompt (and scene) comes once before any comes a second time. Items that name
    the same combination of things form a cluster. "validation" is a third of the combinations of
    the unlabelled split, for choosing settings in runs that do not train on them. It has no single
    things, as "test" has none: every model has seen them with their captions.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if split == "validation":
        asked = distinct_first(filter(_is_held_back, prompts("unlabelled", 8 * n, seed)), n)
        shown = distinct_first(filter(_shows_held_back, scenes("unlabelled", 8 * n, seed)), n)
    else:
        asked = prompts(known_split(split), n, seed)
        shown = distinct_first(scenes(known_split(split), 4 * n, seed), n)
    rng = np.random.default_rng([seed, 1])

    def judge_pictures(pictures: np.ndarray, items: Sequence[int]) -> dict[str, np.ndarray]:
        read = read_pictures(pictures)
        verdicts = [
            judge_picture(scene, asked[item]) for scene, item in zip(read, items, strict=True)
        ]
        table = np.array(verdicts, dtype=bool).reshape(len(verdicts), 3)
        return {"correct": table[:, 0], "shapes": table[:, 1], "binding": table[:, 2]}

    def judge_captions(captions: Sequence[str], items: Sequence[int]) -> dict[str, np.ndarray]:
        pairs = zip(captions, items, strict=True)
        return {"correct": np.array([caption_correct(text, shown[i]) for text, i in pairs], bool)}

    return Task(
        name=f"shapes/{split}",
        prompts=asked,
        prompt_categories=[category(prompt) for prompt in asked],
        prompt_clusters=[_named(asked_kinds(prompt)) for prompt in asked],
        pictures=[draw(scene, int(rng.integers(2**31))) for scene in shown],
        picture_categories=[scene_category(scene) for scene in shown],
        picture_clusters=[_named(kinds_of(scene)) for scene in shown],
        references=[describe(scene, rng) for scene in shown],
        judge_pictures=judge_pictures,
        judge_captions=judge_captions,
    )


def known_split(name: str) -> Split:
    """The split of that name, or a ValueError that lists them."""
    for split in SPLITS:
        if split == name:
            return split
    raise ValueError(f"no split {name!r}; there are {', '.join(SPLITS)} and validation")


def in_validation(kinds: tuple[Kind, ...]) -> bool:
    """Whether these things are a combination that validation holds back from training."""
    if len(kinds) == 1 or split_of((kinds[0], kinds[1])) != "unlabelled":
        return False
    return hashlib.sha256(f"validation {_named(kinds)}".encode()).digest()[0] < 256 / 3


def asked_kinds(prompt: str) -> tuple[Kind, ...]:
    """The things that a prompt names; ValueError if it is none."""
    category(prompt)
    statement = parse(prompt)
    return statement.things if statement else ()


def kinds_of(scene: Scene) -> tuple[Kind, ...]:
    """The things that a scene shows."""
    return tuple(thing.kind for thing in scene.things)


def distinct_first(drawn: Iterable[Any], n: int) -> list[Any]:
    """`n` of the items drawn: in the order drawn, but all first occurrences before any second."""
    items = list(drawn)
    seen: dict[Any, int] = {}
    rank = []
    for item in items:
        seen[item] = seen.get(item, -1) + 1
        rank.append(seen[item])
    order = sorted(range(len(items)), key=lambda place: (rank[place], place))
    return [items[place] for place in order[:n]]


def _is_held_back(prompt: str) -> bool:
    return in_validation(asked_kinds(prompt))


def _shows_held_back(scene: Scene) -> bool:
    return in_validation(kinds_of(scene))


def _named(kinds: tuple[Kind, ...]) -> str:
    return " + ".join(sorted(f"{kind.color} {kind.shape}" for kind in kinds))
