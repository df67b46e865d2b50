"""Measures weights on inputs set aside, without labels: what the guard judges."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from suder import ranks
from suder.engine.sampling import AT_ONCE
from suder.guard.candidates import of_candidates
from suder.guard.distance import logprob_of, truncates
from suder.guard.look import Change, Look, compared, mean_of, spread_of
from suder.guard.statistics import distinct
from suder.guard.strip import Strip, strip_of
from suder.inputs.files import DataError
from suder.method.conditions import read_conditions
from suder.method.judge import SelfJudge
from suder.method.rewards import DualReward
from suder.method.rollouts import Rollouts
from suder.method.sampling import sample_rollouts
from suder.method.scoring import check_reward_of, reward_of
from suder.models.base import DIRECTIONS, Condition, Direction, NotFinite, UnifiedModel
from suder.settings.config import TrainConfig


class Watch:
    """Takes looks: held-out inputs prepared once, and the start model's samples to compare with.

    A look draws as the run draws (`config.sampling`), and a caption that was cut off has no reward
    where the run gives it none (`reward.cut_captions`).

    Attributes:
        judge: asks the frozen start model whether a picture shows what a text says; None where it
            cannot be asked.
        unasked: why not; "" for a model that has not the words of its family's question, as
            embedded ones: it was not made to be asked.
        lost: pictures that could not be read any more, or have changed, with the reason.
        strip: of the last look, what it shows to people.
    """

    def __init__(
        self,
        start: UnifiedModel,
        images: tuple[str, ...],
        prompts: tuple[str, ...],
        config: TrainConfig,
        seed: int,
        digests: Mapping[str, str] | None = None,
        reward_model: UnifiedModel | None = None,
    ) -> None:
        settings = config.guard
        self.start, self.sampling = start, config.sampling
        judge = SelfJudge(start)
        self.judge = None if judge.unavailable else judge
        own = config.prompts.judge is not None
        self.unasked = judge.unavailable if own or not judge.lacks else ""
        self.counts_cut = config.reward.cut_captions == "keep"
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
        self.scorer = DualReward(reward_model or start)
        self.seed, self.at_once = seed, AT_ONCE
        self.tokens: int | None = None
        self.first: dict[str, Tensor] = {}  # of the start, each input's mean, float64 [C]
        self.spread: dict[str, float] = {}
        self.strip = Strip()

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
        if self.judge is not None:
            self.judge.tokens_per_batch = tokens
        kl: dict[str, float] = {}
        entropy: dict[str, float] = {}
        reward: dict[str, Change] = {}
        statistics: dict[str, Change] = {}
        strip = Strip()
        for direction in DIRECTIONS:
            try:
                rollouts = self._sample(model, direction)
                kl[direction] = self._distance(model, rollouts)
                entropy[direction] = float(-rollouts.logprob.mean())
                reward[direction], each = self._reward(rollouts)
                statistics |= self._statistics(rollouts)
                with ranks.each():
                    strip = strip_of(strip, rollouts, self.start, each)
            except NotFinite:
                if direction not in self.first:
                    raise
                kl[direction] = entropy[direction] = math.nan
                reward[direction] = Change(math.nan, math.nan, math.nan, 0, math.nan)
        self.strip = strip
        return Look(round_index, kl, entropy, reward, statistics)

    def _sample(self, model: UnifiedModel, direction: Direction) -> Rollouts:
        return sample_rollouts(
            model, direction, self.inputs[direction], self.group[direction], self.sampling,
            self.seed, condition=self.conditions[direction], at_once=self.at_once,
        )  # fmt: skip

    def _distance(self, model: UnifiedModel, rollouts: Rollouts) -> float:
        own = rollouts.logprob
        if truncates(self.sampling):
            own = self.logprob(model, rollouts)
        delta = (self.logprob(self.start, rollouts) - own).double()
        return float((delta.expm1() - delta).mean())

    def logprob(self, model: UnifiedModel, rollouts: Rollouts) -> Tensor:
        """float32 `[T]`, by a model, of what another may have drawn."""
        condition = self.conditions[rollouts.direction]
        return logprob_of(model, rollouts, condition, self.sampling, self.at_once, self.tokens)

    def _reward(self, rollouts: Rollouts) -> tuple[Change, Tensor]:
        """Against the start's, and of each candidate `[B]`, NaN where there is none."""
        direction = rollouts.direction
        reward = reward_of(rollouts, self.scorer, self.start, self.conditions[direction])
        # Empty captions have no reward; one that is not finite says nothing.
        reward = reward.masked_fill(~reward.isfinite(), torch.nan)
        if direction not in self.first:
            check_reward_of(rollouts, self.start, reward)
        if not self.counts_cut:
            reward = reward.masked_fill(~rollouts.finished, torch.nan)
        return self._change(direction, reward, len(rollouts.inputs)), reward

    def _statistics(self, rollouts: Rollouts) -> dict[str, Change]:
        inputs = len(rollouts.inputs)
        given = self.conditions[rollouts.direction]
        found = of_candidates(rollouts, given, self.start, self.judge)
        sequences = [tuple(one.tolist()) for one in rollouts.sequences()]
        found["distinct"] = distinct(sequences, inputs)
        names = {f"{rollouts.direction}/{name}": values for name, values in found.items()}
        return {name: self._change(name, values, inputs) for name, values in names.items()}

    def _change(self, name: str, values: Tensor, inputs: int) -> Change:
        """Against the start's, whose own the first are."""
        each = mean_of(values, inputs)
        if name not in self.first:
            self.first[name], self.spread[name] = each, spread_of(values)
        return compared(each, self.first[name], self.spread[name])
