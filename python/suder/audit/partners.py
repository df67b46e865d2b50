"""Both rewards of matching partners and of shuffled ones: without a difference, no signal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from suder.audit.numbers import Correlation, Preference, inside, preference
from suder.method.rewards import DualReward
from suder.models.base import DIRECTIONS, Direction


class Partners(NamedTuple):
    """One direction's rewards of partners, input by input.

    Attributes:
        reward: float `[1 + K, n]`: of input i with its own partner, then with those of K other
            inputs; NaN where there is no reward, or the other's partner is a right one, too.
        length: float `[1 + K, n]`: tokens of the captions; of pictures all are as long.
    """

    reward: np.ndarray
    length: np.ndarray

    def preference(self) -> Preference:
        """How the matching partner fares against the others."""
        return preference(self.reward[0], self.reward[1:])

    def length_bias(self) -> Correlation:
        """Of the reward with the length, among partners that are all wrong.

        A right caption may well be a long one; of wrong ones none should be liked for that.
        """
        return inside(self.reward[1:].T, self.length[1:].T)


def score_partners(
    scorer: DualReward,
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    shuffles: int,
    advance: Callable[[], None] = lambda: None,
) -> dict[Direction, Partners]:
    """Rewards of captions of a picture ("understanding") and of pictures of a caption
    ("generation"), each input with its own partner and with those of `shuffles` others.

    Args:
        pictures, captions: n each, at least two; equal captions are not compared.
        advance: called after each of the 2 * (1 + shuffles) turns.
    """
    model = scorer.model
    codes = torch.cat([model.encode(model.pixels([one])) for one in pictures])
    tokens = np.array([len(ids) for ids in model.tokenize(list(captions))], float)
    found: dict[Direction, Partners] = {}
    n = len(pictures)
    turns = range(min(shuffles, n - 1) + 1)
    others = [[(i + turn) % n for i in range(n)] for turn in turns]
    for direction in DIRECTIONS:
        rows = []
        for other in others:
            texts = [captions[i] for i in other]
            if direction == "understanding":
                reward = scorer.understanding(codes, texts)
            else:
                reward = scorer.generation(captions, [pictures[i] for i in other])
            row = reward.double().cpu().numpy()
            right = [i != j and captions[i] == captions[j] for i, j in enumerate(other)]
            rows.append(np.where(right, np.nan, row))
            advance()
        captioned = direction == "understanding"
        length = np.stack([tokens[other] if captioned else np.zeros(n) for other in others])
        found[direction] = Partners(np.stack(rows), length)
    return found


def judge_partners(
    judge: Callable[..., Any],
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    shuffles: int,
) -> Preference:
    """How often the model's own yes or no prefers a picture's own caption."""
    n = len(pictures)
    rows = []
    for turn in range(min(shuffles, n - 1) + 1):
        texts = [captions[(i + turn) % n] for i in range(n)]
        right = [turn > 0 and text == own for text, own in zip(texts, captions, strict=True)]
        row = judge(list(pictures), texts).double().cpu().numpy()
        rows.append(np.where(right, np.nan, row))
    return preference(rows[0], np.stack(rows[1:]))
