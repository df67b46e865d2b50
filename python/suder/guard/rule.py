"""Keeps a run from ending worse than it began, without labels.

A look (`watch.py`) samples candidates for inputs set aside, always with the same seeds, and
measures how far the weights are from the start model, whether that model, kept frozen, finds the
results better than its own, and what of them no reward contains. The guard turns looks into what
to do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from suder.guard.chance import keep_bound, planned, score, stop_bound
from suder.guard.drift import moved
from suder.guard.look import Look
from suder.models.base import Direction
from suder.settings.keeping import Guard as Settings

Verdict = Literal["keep", "hold", "stop", "rollback"]


class Guard:
    """Decides from looks. The rule, which knows no labels:

    - *worth keeping*: the frozen start model gives more reward than to its own results, by more
      than chance over all looks of the run (`guard.false_keep`): the trained directions' gains,
      each in its standard errors, add up to more than the bound of that sum. And nothing looks
      lost: no direction's reward is lower by more than `guard.loss_limit`, no statistic moved by
      more than `guard.drift_limit`, both in the start's own spread, and a direction that is not
      trained is within `guard.idle_kl_limit` nats a token of the start. The latest such weights are
      the best so far; until then that is the start model itself.
    - *declining*: image tokens more than `kl_limit` nats from the start, or a reward lower, or a
      statistic further than its limit, by more than chance over all looks and all that is watched
      (`guard.false_stop`), or collapsed. Not kept, whatever the other direction gained; `patience`
      such looks in a row end the run, or roll it back. Between the two it just goes on.
    - *collapsed*: a number that is not finite, or an entropy under `entropy_floor` of the start's.
      Acted on at once.

    `loss_limit` is what two points cost: where a share p is right and rewards tell right from wrong
    by d, their standard deviation is at least d sqrt(p (1 - p)), so that two points lower the mean
    by at most 0.02 / sqrt(p (1 - p)) of it, 0.04 at one half and 0.05 at four fifths.
    `idle_kl_limit` was set on the validation split of `shapes`, seed 1: understanding alone, with
    no anchor, lost 1 point of pictures at 0.01 nats a token, and 2 and more from 0.02.

    Args:
        trained: the directions that are trained. The other one drifts without being rewarded, so
            that its gain counts as no evidence.
        rounds: of the whole run: how many looks chance has.
    """

    def __init__(self, settings: Settings, trained: Sequence[Direction], rounds: int) -> None:
        self.settings = settings
        self.trained = tuple(trained)
        self.planned = planned(rounds, settings.every)
        self.start: Look | None = None
        self.best = 0
        self.declines = 0
        self.rollbacks = 0
        self.note = ""

    def judge(self, look: Look) -> Verdict:
        """Takes in a look (the first is the start's) and says what to do; `note` says why."""
        if self.start is None:
            self.start, self.note = look, "start"
            return "keep"
        collapse = self._collapse(look, self.start)
        decline = collapse or self._decline(look)
        if not decline:
            self.declines = 0
            doubt = self._doubt(look)
            if doubt:
                self.note = f"held: {doubt}"
                return "hold"
            self.best, self.note = look.round, "kept"
            return "keep"
        self.declines += 1
        self.note = decline
        if collapse or self.declines >= self.settings.patience:
            return self._act()
        return "hold"

    def alarm(self, why: str) -> Verdict:
        """Something that no look is needed for, such as gradients that are not finite."""
        self.note = why
        return self._act()

    def _act(self) -> Verdict:
        if self.settings.action == "watch":
            return "hold"
        if self.settings.action == "rollback" and self.rollbacks < self.settings.max_rollbacks:
            self.rollbacks += 1
            self.declines = 0
            return "rollback"
        return "stop"

    def _collapse(self, look: Look, start: Look) -> str:
        for direction, reward in look.reward.items():
            numbers = [look.kl[direction], look.entropy[direction]]
            if math.isfinite(start.reward[direction].mean):  # all captions may be cut off
                numbers.append(reward.mean)
            if not all(map(math.isfinite, numbers)):
                return "collapsed: a measurement is not finite"
        for direction, entropy in look.entropy.items():
            floor = self.settings.entropy_floor * start.entropy[direction]
            if entropy < floor:
                return f"collapsed: {direction} entropy {entropy:.3f}, floor {floor:.3f}"
        return ""

    def _decline(self, look: Look) -> str:
        if look.kl["generation"] > self.settings.kl_limit:
            return f"image KL {look.kl['generation']:.3f} over {self.settings.kl_limit}"
        tests = len(look.reward) + 2 * len(look.statistics)  # a statistic moves either way
        bound = stop_bound(self.settings.false_stop, tests, self.planned)
        for direction, one in look.reward.items():
            if score(one) < -bound:
                return f"{direction} reward under the start model down by {-one.change:.3f}"
        for words, one in moved(look, self.settings.drift_limit):
            if abs(score(one)) > bound:
                return words
        return ""

    def _doubt(self, look: Look) -> str:
        """Why these weights cannot be said to be better than the start's; "" if they can."""
        evidence = sum(score(look.reward[one]) for one in self.trained) / math.sqrt(
            len(self.trained)
        )
        number = planned(look.round, self.settings.every)
        bound = keep_bound(self.settings.false_keep, number, self.planned)
        if not evidence > bound:
            return (
                f"rewards better than the start's by only {evidence:.1f} standard errors, and "
                f"{bound:.1f} are beyond chance"
            )
        for direction, kl in look.kl.items():
            if direction not in self.trained and kl > self.settings.idle_kl_limit:
                return f"{direction} is not trained, and {kl:.3f} nats a token from the start"
        for direction, one in look.reward.items():
            if one.change < -self.settings.loss_limit * one.spread:
                return f"{direction} reward under the start model may be down by {-one.change:.3f}"
        return next((words for words, _ in moved(look, self.settings.drift_limit)), "")

    def state(self) -> dict[str, Any]:
        kept = {key: getattr(self, key) for key in ("best", "declines", "rollbacks", "note")}
        return kept | {"start": self.start and self.start.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        for key in ("best", "declines", "rollbacks", "note"):
            setattr(self, key, state[key])
        self.start = state["start"] and Look.load(state["start"])
