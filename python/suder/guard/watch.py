"""Measures weights on inputs set aside, without labels: what the guard judges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from suder import ranks
from suder.engine.sampling import AT_ONCE
from suder.inputs.files import DataError
from suder.method.cut import cut
from suder.method.rewards import DualReward
from suder.method.rollouts import (
    Rollouts,
    check_reward_of,
    read_conditions,
    reward_of,
    sample_rollouts,
)
from suder.models.base import DIRECTIONS, Condition, Direction, NotFinite, UnifiedModel
from suder.settings.config import Guard as Settings
from suder.settings.config import Sampling
from suder_ext import linear_logprob

PLAIN = Sampling()  # temperature 1, nothing cut, no guidance: samples of the model itself


@dataclass(frozen=True)
class Look:
    """What the guard sees of some weights.

    Attributes:
        kl: nats per token to the start model, by direction (k3 on the model's own samples).
        entropy: nats per token of the model itself, by direction.
        reward: mean dual reward under the frozen start model, by direction.
        gain: the reward's mean paired difference to the start's look, input by input.
        error: the standard error of `gain`; infinite where it cannot be told.
    """

    round: int
    kl: dict[str, float]
    entropy: dict[str, float]
    reward: dict[str, float]
    gain: dict[str, float]
    error: dict[str, float]

    def log(self) -> dict[str, float]:
        return {
            f"guard/{name}/{direction}": value
            for name in ("kl", "entropy", "reward", "gain", "error")
            for direction, value in getattr(self, name).items()
        }


class Watch:
    """Takes looks: held-out inputs prepared once, and the start model's rewards to compare with.

    Attributes:
        lost: pictures that could not be read any more, or have changed, with the reason.
    """

    def __init__(
        self,
        start: UnifiedModel,
        images: tuple[str, ...],
        prompts: tuple[str, ...],
        settings: Settings,
        max_new_tokens: int | None,
        seed: int,
        digests: Mapping[str, str] | None = None,
        reward_model: UnifiedModel | None = None,
    ) -> None:
        self.start = start
        shown = read_conditions(start, "understanding", images, digests, settings.inputs)
        asked = read_conditions(start, "generation", prompts, most=settings.inputs)
        if shown.lost and not shown.inputs:
            raise DataError("none of the guard's pictures can be read: " + shown.lost[0][1])
        self.lost = shown.lost
        self.inputs: dict[Direction, tuple[str, ...]] = {
            "understanding": shown.inputs,
            "generation": asked.inputs,
        }
        self.conditions: dict[Direction, Condition] = {
            "understanding": shown.values,
            "generation": asked.values,
        }
        self.group = {
            direction: max(1, round(settings.samples / len(inputs)))
            for direction, inputs in self.inputs.items()
        }
        self.sampling = PLAIN.model_copy(update={"max_new_tokens": max_new_tokens})
        self.scorer = DualReward(reward_model or start)
        self.seed, self.at_once = seed, AT_ONCE
        self.tokens: int | None = None
        self.first: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def look(
        self,
        model: UnifiedModel,
        round_index: int,
        at_once: int = AT_ONCE,
        tokens: int | None = None,
    ) -> Look:
        """Measures `model`; the first call must be with the start model's own weights.

        Weights whose logits are not finite are measured as NaN, for the guard to see.

        Args:
            at_once: candidates that are drawn, or looked at, at once.
            tokens: of one pass that reads candidates, at most.

        Raises:
            NotFinite: the start model is such a one, or gives no finite reward.
        """
        self.at_once, self.tokens, self.scorer.tokens_per_batch = at_once, tokens, tokens
        seen: dict[str, dict[str, float]] = {
            name: {} for name in ("kl", "entropy", "reward", "gain", "error")
        }
        for direction in DIRECTIONS:
            try:
                measured = self._measure(model, direction)
            except NotFinite:
                if direction not in self.first:
                    raise
                measured = dict.fromkeys(seen, math.nan)
            for name, value in measured.items():
                seen[name][direction] = value
        return Look(round_index, **seen)

    def _measure(self, model: UnifiedModel, direction: Direction) -> dict[str, float]:
        rollouts = sample_rollouts(
            model, direction, self.inputs[direction], self.group[direction], self.sampling,
            self.seed, condition=self.conditions[direction], at_once=self.at_once,
        )  # fmt: skip
        delta = (self._start_logprob(rollouts) - rollouts.logprob).double()
        reward = reward_of(rollouts, self.scorer, self.start, self.conditions[direction])
        # Empty captions have no reward; one that is not finite says nothing.
        reward = reward.masked_fill(~reward.isfinite(), torch.nan)
        if direction not in self.first:
            check_reward_of(rollouts, self.start, reward)
        each = reward.view(-1, rollouts.group).nanmean(1)
        gain = each - self.first.setdefault(direction, each)
        gain = gain[gain.isfinite()]
        spread = float(gain.std()) if gain.numel() > 1 else math.inf
        return {
            "kl": float((delta.expm1() - delta).mean()),
            "entropy": float(-rollouts.logprob.mean()),
            "reward": float(each.nanmean()),
            "gain": float(gain.mean()),
            "error": spread / math.sqrt(max(1, gain.numel())),
        }

    def _start_logprob(self, rollouts: Rollouts) -> torch.Tensor:
        """float32 `[T]`; each of the run's processes looks at its share of the inputs."""
        here = ranks.share(len(rollouts.inputs))
        condition = self.conditions[rollouts.direction][here.start : here.stop]
        with ranks.each():
            logprob = self._logprob(rollouts.take(here), condition)
        return torch.cat(ranks.gather(logprob))

    def _logprob(self, rollouts: Rollouts, condition: Condition) -> torch.Tensor:
        """In parts no larger than what is sampled, or scored, at once."""
        direction, group, found = rollouts.direction, rollouts.group, [torch.zeros(0)]
        targets = rollouts.sequences()
        lengths = list(map(len, targets))

        def fits(rows: range, part: range) -> bool:
            if len(rows) * len(part) > self.at_once or self.tokens is None:
                return len(rows) * len(part) <= self.at_once
            given = condition[rows.start : rows.stop]
            asked = len(rows) if isinstance(given, torch.Tensor) else given
            chosen = [lengths[row * group + i] for row in rows for i in part]
            return self.start.tokens_read(direction, asked, chosen, len(part)) <= self.tokens

        for rows, part in cut(len(rollouts.inputs), group, fits):
            chosen: Any = [targets[row * group + i] for row in rows for i in part]
            if direction == "generation":
                chosen = torch.stack(chosen)
            given = condition[rows.start : rows.stop]
            hidden = self.start(direction, given, chosen, len(part))
            found.append(
                linear_logprob(hidden.hidden, hidden.weight, hidden.target, hidden.bias).cpu()
            )
        return torch.cat(found)
