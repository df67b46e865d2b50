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

from suder.engine.sampling import sample
from suder.evaluation.progress import progress_bar
from suder.evaluation.statistics import Interval, reward_accuracy
from suder.evaluation.task import Task
from suder.method.rewards import DualReward, check_rewards
from suder.models.base import Direction


@dataclass(frozen=True)
class Groups:
    """Candidates of one direction: `reward` float and `correct` bool, both `[inputs, N]`."""

    reward: np.ndarray
    correct: np.ndarray
    clusters: list[str]

    def best(self) -> np.ndarray:
        """bool `[inputs]`: whether the candidate of highest reward is right; no: none is finite."""
        filled = np.where(np.isfinite(self.reward), self.reward, -np.inf)
        chosen = self.correct[np.arange(len(filled)), filled.argmax(1)]
        right: np.ndarray = np.logical_and(chosen, np.isfinite(filled.max(1)))
        return right

    def any_right(self) -> np.ndarray:
        """bool `[inputs]`: whether any candidate is right, the ceiling of best-of-N."""
        return np.asarray(self.correct.any(1))

    def reward_accuracy(self) -> Interval:
        """Probability that of a right and a wrong candidate the right one has more reward."""
        return reward_accuracy(self.reward, self.correct, self.clusters)


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

    Returns groups under "generation" and "understanding". `batch_size` is in inputs.

    Raises:
        NotFinite: a direction's candidates have no finite reward at all.
    """
    scorer = DualReward(model)
    clusters: dict[Direction, list[str]] = {
        "generation": list(task.prompt_clusters[:inputs]),
        "understanding": list(task.picture_clusters[:inputs]),
    }
    one_batch: dict[Direction, Any] = {"generation": _pictures, "understanding": _captions}
    found: dict[str, Groups] = {}
    with progress_bar(progress) as bar, torch.inference_mode():
        total = sum(map(len, clusters.values()))
        label = bar.add_task(f"{task.name} best of {candidates}", total=total)
        for direction, names in clusters.items():
            scored = []
            for start in range(0, len(names), batch_size):
                items = range(start, min(len(names), start + batch_size))
                at = seed + start
                scored.append(
                    one_batch[direction](model, scorer, task, items, candidates, temperature, at)
                )
                bar.advance(label, len(items))
            texts = [text for some, _, _ in scored for text in some]
            check_rewards(model, direction, texts, torch.cat([part for _, part, _ in scored]))
            reward = np.concatenate([np.asarray(part, np.float64) for _, part, _ in scored])
            correct = np.concatenate([part for _, _, part in scored])
            shape = (-1, candidates)
            found[direction] = Groups(reward.reshape(shape), correct.reshape(shape), names)
    return found


def _pictures(
    model: Any, scorer: DualReward, task: Task, items: range, n: int, temperature: float, seed: int
) -> tuple[list[str], torch.Tensor, np.ndarray]:
    asked = [task.prompts[item] for item in items]
    drawn = sample(model, "generation", asked, n, temperature=temperature, seed=seed)
    reward = scorer.generation(asked, drawn.tokens, group=n)
    pictures = np.asarray(model.decode(drawn.tokens).cpu())
    return asked, reward.cpu(), task.judge_pictures(pictures, _repeat(items, n))["correct"]


def _captions(
    model: Any, scorer: DualReward, task: Task, items: range, n: int, temperature: float, seed: int
) -> tuple[list[str], torch.Tensor, np.ndarray]:
    shown = [task.pictures[item] for item in items]
    pixels = model.pixels(shown)
    drawn = sample(model, "understanding", pixels, n, temperature=temperature, seed=seed)
    captions = model.detokenize(drawn.tokens)
    reward = scorer.understanding(model.encode(pixels), captions, group=n)
    return captions, reward.cpu(), task.judge_captions(captions, _repeat(items, n))["correct"]


def _repeat(items: Sequence[Any], times: int) -> list[Any]:
    """Condition-major, as the sampler orders its candidates."""
    return [item for item in items for _ in range(times)]
