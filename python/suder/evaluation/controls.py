"""Groups of candidates scored by the dual rewards and judged by the checker, nothing trained.

They answer two questions a gain must survive: does the reward know right from wrong inside a group
(reward accuracy), and how much does picking the best of N by the reward give without training?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from suder.evaluation.statistics import Interval, reward_accuracy
from suder.evaluation.task import Task
from suder.rewards import DualReward
from suder.sampling import sample


@dataclass(frozen=True)
class Groups:
    """Candidates of one direction: `reward` float and `correct` bool, both `[inputs, N]`."""

    reward: np.ndarray
    correct: np.ndarray
    clusters: list[str]

    def best(self) -> np.ndarray:
        """bool `[inputs]`: whether the candidate of highest reward is right (all NaN: wrong)."""
        filled = np.where(np.isnan(self.reward), -np.inf, self.reward)
        chosen = self.correct[np.arange(len(filled)), filled.argmax(1)]
        return chosen & np.isfinite(filled.max(1))

    def any_right(self) -> np.ndarray:
        """bool `[inputs]`: whether any candidate is right, the ceiling of best-of-N."""
        return self.correct.any(1)

    def reward_accuracy(self, *, seed: int = 0) -> Interval:
        """Probability that of a right and a wrong candidate the right one has more reward."""
        return reward_accuracy(self.reward, self.correct, self.clusters, seed=seed)


def candidate_groups(
    model: Any,
    task: Task,
    *,
    candidates: int = 8,
    inputs: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> dict[str, Groups]:
    """Sample `candidates` for each of the task's first `inputs` inputs; score and judge them.

    Returns groups under "generation" and "captions". `batch_size` is in inputs.
    """
    scorer = DualReward(model)
    how = {"n": candidates, "temperature": temperature}
    found: dict[str, Groups] = {}
    asked = list(task.prompts[:inputs])
    shown = list(task.pictures[:inputs])
    with Progress(transient=True, disable=not progress) as bar, torch.inference_mode():
        label = bar.add_task(f"{task.name} best of {candidates}", total=len(asked) + len(shown))
        scored = []
        for items in _batches(len(asked), batch_size):
            conditions = [asked[item] for item in items]
            tokens = sample(model, "generation", conditions, seed=seed + items[0], **how).tokens
            reward = scorer.generation(_repeat(conditions, candidates), tokens)
            pictures = np.asarray(model.decode(tokens).cpu())
            verdict = task.judge_pictures(pictures, _repeat(items, candidates))
            scored.append((reward, verdict["correct"]))
            bar.advance(label, len(items))
        found["generation"] = _groups(scored, candidates, list(task.prompt_clusters[:inputs]))
        scored = []
        for items in _batches(len(shown), batch_size):
            pictures = [shown[item] for item in items]
            pixels = model.pixels(pictures)
            drawn = sample(model, "understanding", pixels, seed=seed + items[0], **how)
            reward = scorer.understanding(_repeat(pictures, candidates), drawn.tokens)
            captions = model.detokenize(drawn.tokens)
            verdict = task.judge_captions(captions, _repeat(items, candidates))
            scored.append((reward, verdict["correct"]))
            bar.advance(label, len(items))
        found["captions"] = _groups(scored, candidates, list(task.picture_clusters[:inputs]))
    return found


def _groups(scored: list[tuple[Any, np.ndarray]], size: int, clusters: list[str]) -> Groups:
    reward = np.concatenate([np.asarray(part, np.float64) for part, _ in scored])
    correct = np.concatenate([part for _, part in scored])
    return Groups(reward.reshape(-1, size), correct.reshape(-1, size), clusters)


def _batches(count: int, size: int) -> list[range]:
    return [range(start, min(count, start + size)) for start in range(0, count, size)]


def _repeat(items: Sequence[Any], times: int) -> list[Any]:
    """Condition-major, as the sampler orders its candidates."""
    return [item for item in items for _ in range(times)]
