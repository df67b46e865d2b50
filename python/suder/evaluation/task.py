"""What a model is judged on: prompts and pictures it has not seen, and who judges the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from suder.evaluation.checker import caption_correct, category, judge_picture, scene_category
from suder.evaluation.reader import read_pictures
from suder.world.captions import describe
from suder.world.drawing import draw
from suder.world.scenes import Scene, prompts, scenes

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


def shapes_task(split: str, n: int = 1000, seed: int = 0) -> Task:
    """`n` prompts and `n` pictures of a split of the shapes world, judged by the exact checker.

    Every distinct prompt (and scene) comes once before any comes a second time.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    asked = distinct_first(prompts(split, 4 * n, seed), n)
    shown = distinct_first(scenes(split, 4 * n, seed), n)
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
        prompt_clusters=asked,
        pictures=[draw(scene, int(rng.integers(2**31))) for scene in shown],
        picture_categories=[scene_category(scene) for scene in shown],
        picture_clusters=[_name(scene) for scene in shown],
        references=[describe(scene, rng) for scene in shown],
        judge_pictures=judge_pictures,
        judge_captions=judge_captions,
    )


def distinct_first(drawn: Sequence[Any], n: int) -> list[Any]:
    """`n` of the items drawn: in the order drawn, but all first occurrences before any second."""
    seen: dict[Any, int] = {}
    rank = []
    for item in drawn:
        seen[item] = seen.get(item, -1) + 1
        rank.append(seen[item])
    order = sorted(range(len(drawn)), key=lambda place: (rank[place], place))
    return [drawn[place] for place in order[:n]]


def _name(scene: Scene) -> str:
    return " + ".join(f"{thing.color} {thing.shape} @{thing.cell}" for thing in scene.things)
