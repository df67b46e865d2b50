"""Groups of candidates as a first round would have them, seen by both rewards and by the judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from suder.engine.sampling import sample
from suder.method.judge import SelfJudge
from suder.method.rewards import DualReward
from suder.method.selection import select
from suder.models.base import Direction


@dataclass(frozen=True)
class Groups:
    """One direction's candidates, G groups of N.

    Attributes:
        inputs: G prompts, or pictures uint8 `[H, W, 3]`.
        candidates: G lists of N captions, or of pictures.
        reward: float `[G, N]`, what training would use; NaN: none, or a caption that was cut off.
        other: float `[G, N]`, the other direction's reward of the same picture and text.
        judge: float `[G, N]`, the model's own yes to them; None where it cannot be asked.
        length: float `[G, N]`, tokens of captions; 0 of pictures.
    """

    direction: Direction
    inputs: Sequence[Any]
    candidates: Sequence[Sequence[Any]]
    reward: np.ndarray
    other: np.ndarray
    judge: np.ndarray | None
    length: np.ndarray

    def best_and_worst(self) -> list[tuple[int, int] | None]:
        """Of each group the candidates that a pair would be made of; None: it would make none."""
        count = self.reward.shape[1]
        chosen = select(torch.from_numpy(self.reward).float().flatten(), count)
        return [
            (int(best) % count, int(worst) % count) if paired else None
            for best, worst, paired in zip(chosen.best, chosen.worst, chosen.paired, strict=True)
        ]


def make_groups(
    scorer: DualReward,
    judge: SelfJudge | None,
    direction: Direction,
    inputs: Sequence[Any],
    candidates: int,
    *,
    temperature: float = 1.0,
    guidance: float = 1.0,
    max_new_tokens: int | None = None,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> Groups:
    """Samples `candidates` of each input (pictures, or prompts) and scores them both ways.

    Args:
        advance: called after each input.
    """
    model: Any = scorer.model
    n = candidates
    rows: list[list[np.ndarray]] = []
    drawn: list[list[Any]] = []
    for place, given in enumerate(inputs):
        how: dict[str, Any] = {"temperature": temperature, "seed": seed, "first": place}
        if direction == "generation":
            tokens = sample(model, direction, [given], n, guidance=guidance, **how).tokens
            pictures = list(model.decode(tokens).cpu().numpy())
            texts, found = [given] * n, pictures
            reward = scorer.generation(texts, tokens, group=n)
            other = scorer.understanding(tokens, texts)
            lengths = np.zeros(n)
        else:
            pixels = model.pixels([given])
            how["max_new_tokens"] = max_new_tokens
            written = sample(model, direction, pixels, n, **how)
            texts = model.detokenize(written.tokens)
            pictures, found = [given] * n, texts
            reward = scorer.understanding(model.encode(pixels), texts, group=n)
            reward[~written.finished.to(reward.device)] = torch.nan  # no candidate of a run, either
            other = scorer.generation(texts, pictures)
            lengths = np.array([len(one) for one in written.tokens], float)
        parts = [reward, other] if judge is None else [reward, other, judge(pictures, texts)]
        rows.append([*(part.double().cpu().numpy() for part in parts), lengths])
        drawn.append(found)
        advance()
    columns = [np.stack([row[i] for row in rows]) for i in range(len(rows[0]))]
    return Groups(
        direction=direction,
        inputs=inputs,
        candidates=drawn,
        reward=columns[0],
        other=columns[1],
        judge=None if judge is None else columns[2],
        length=columns[-1],
    )
