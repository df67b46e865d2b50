"""Judges the digits world: a classifier of real scans for pictures, the words for captions.

The classifier (a support vector machine, scikit-learn) is trained on the labelled scans of the
supervised and unlabelled splits and is itself tested on those of the test split: `accuracy()`.
It always answers with some digit, so that pictures of nothing are right one time in ten.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from suder.evaluation.task import Task
from suder.world.digits import NAMES, prompt, scans
from suder.world.splits import Split
from suder.world.things import SIZE

SCAN = 8  # side of the original scans


def digits_task(split: Split, n: int = 1000, seed: int = 0) -> Task:
    """`n` prompts, every digit as often, and `n` scans of the split: all of them before any twice.

    Items of one prompt (or one scan) form a cluster. There are ten prompts and so ten greedy
    pictures, which go right and wrong like coins while the distribution they are the peak of gets
    better (`benchmarks/near_greedy.py`); drawn at temperature 0.1 each item is one of its own.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    rng = np.random.default_rng([seed, 31])
    asked = rng.permutation(np.arange(n) % len(NAMES))
    found, digits = scans(split)
    rows = rng.permutation(len(found))[np.arange(n) % len(found)]

    def judge_pictures(pictures: np.ndarray, items: Sequence[int]) -> dict[str, np.ndarray]:
        return {"correct": read_digits(pictures) == asked[list(items)]}

    def judge_captions(captions: Sequence[str], items: Sequence[int]) -> dict[str, np.ndarray]:
        said = [caption.strip().removesuffix(".").lower() for caption in captions]
        true = [prompt(int(digits[rows[item]])) for item in items]
        pairs = zip(said, true, strict=True)
        return {"correct": np.array([one == other for one, other in pairs], bool)}

    return Task(
        name=f"digits/{split}",
        prompts=[prompt(int(digit)) for digit in asked],
        prompt_categories=[NAMES[digit] for digit in asked],
        prompt_clusters=[NAMES[digit] for digit in asked],
        pictures=list(found[rows]),
        picture_categories=[NAMES[digit] for digit in digits[rows]],
        picture_clusters=[f"scan {row}" for row in rows],
        references=[prompt(int(digit)) for digit in digits[rows]],
        judge_pictures=judge_pictures,
        judge_captions=judge_captions,
        nearly_greedy=0.1,
    )


def read_digits(pictures: np.ndarray) -> np.ndarray:
    """The digit that each of uint8 `[B, 32, 32, 3]` pictures looks most like, int64 `[B]`."""
    pictures = np.asarray(pictures)
    if pictures.shape[1:] != (SIZE, SIZE, 3) or pictures.dtype != np.uint8:
        raise ValueError(
            f"pictures must be uint8 [B, {SIZE}, {SIZE}, 3], got {pictures.dtype} {pictures.shape}"
        )
    if not len(pictures):
        return np.zeros(0, np.int64)
    digits: np.ndarray = _classifier().predict(_features(pictures))
    return digits


def accuracy() -> float:
    """Of the judge on the test scans, which it was not trained on."""
    pictures, digits = scans("test")
    return float((read_digits(pictures) == digits).mean())


@functools.cache
def _classifier() -> Any:
    from sklearn.svm import SVC

    known = [scans("supervised"), scans("unlabelled")]
    pictures = np.concatenate([part[0] for part in known])
    digits = np.concatenate([part[1] for part in known])
    return SVC(C=10.0, gamma=0.1).fit(_features(pictures), digits)


def _features(pictures: np.ndarray) -> np.ndarray:
    """Ink in 8 x 8 blocks, as in the original scans: `[B, 64]` in [0, 1]."""
    grey = 1 - pictures.astype(np.float64).mean(-1) / 255
    block = SIZE // SCAN
    ink: np.ndarray = grey.reshape(-1, SCAN, block, SCAN, block).mean((2, 4))
    return ink.reshape(len(grey), -1)
