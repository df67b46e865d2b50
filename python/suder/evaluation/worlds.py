"""The worlds that have a judge, by name."""

from __future__ import annotations

from collections.abc import Callable

from suder.evaluation.digit_judge import digits_task
from suder.evaluation.emoji_judge import emoji_task
from suder.evaluation.task import Task, known_split, shapes_task


def _digits(split: str, n: int, seed: int) -> Task:
    return digits_task(known_split(split), n, seed)


TASKS: dict[str, Callable[[str, int, int], Task]] = {
    "shapes": shapes_task,
    "digits": _digits,
    "emoji": emoji_task,
}


def task_of(world: str, split: str, n: int, seed: int) -> Task:
    """`n` prompts and pictures of a world's split, with their judge."""
    if world not in TASKS:
        raise ValueError(f"no judge for world {world!r}; there are judges for {', '.join(TASKS)}")
    return TASKS[world](split, n, seed)
