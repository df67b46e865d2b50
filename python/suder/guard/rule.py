"""Keeps a run from ending worse than it began, without labels.

A look (`watch.py`) samples candidates for inputs set aside, always with the same seeds, and
measures how far the weights are from the start model and whether that model, kept frozen, finds
the results better than its own. The guard turns looks into what to do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from suder.guard.watch import Look
from suder.models.base import Direction
from suder.settings.config import Guard as Settings
from suder.storage.files import finite

Verdict = Literal["keep", "hold", "stop", "rollback"]


class Guard:
    """Decides from looks. The rule, which knows no labels:

    - *worth keeping*: the frozen start model gives more reward than to its own results, by more
      than chance: the trained directions' gains, each in its standard errors, add up to more than
      `evidence` standard errors of that sum. The latest such weights are the best so far; until
      then that is the start model itself.
    - *declining*: image tokens more than `kl_limit` nats from the start, or a direction's gain
      below minus two standard errors, or collapsed. Not kept, whatever the other direction gained;
      `patience` such looks in a row end the run, or roll it back. Between the two it just goes on.
    - *collapsed*: a number that is not finite, or an entropy under `entropy_floor` of the start's.
      Acted on at once.

    Args:
        trained: the directions that are trained. The other one drifts without being rewarded, so
            that its gain counts as no evidence.
    """

    def __init__(self, settings: Settings, trained: Sequence[Direction]) -> None:
        self.settings = settings
        self.trained = tuple(trained)
        self.looks: list[Look] = []
        self.best = 0
        self.declines = 0
        self.rollbacks = 0
        self.note = ""

    def judge(self, look: Look) -> Verdict:
        """Takes in a look (the first is the start's) and says what to do; `note` says why."""
        self.looks.append(look)
        if len(self.looks) == 1:
            self.note = "start"
            return "keep"
        collapse = self._collapse(look)
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

    def _collapse(self, look: Look) -> str:
        numbers = [*look.kl.values(), *look.entropy.values(), *look.reward.values()]
        if not all(map(math.isfinite, numbers)):
            return "collapsed: a measurement is not finite"
        for direction, entropy in look.entropy.items():
            floor = self.settings.entropy_floor * self.looks[0].entropy[direction]
            if entropy < floor:
                return f"collapsed: {direction} entropy {entropy:.3f}, floor {floor:.3f}"
        return ""

    def _decline(self, look: Look) -> str:
        if look.kl["generation"] > self.settings.kl_limit:
            return f"image KL {look.kl['generation']:.3f} over {self.settings.kl_limit}"
        for direction, gain in look.gain.items():
            if _ratio(gain, look.error[direction]) < -2:
                return f"{direction} reward under the start model down by {-gain:.3f}"
        return ""

    def _doubt(self, look: Look) -> str:
        """Why these weights cannot be said to be better than the start's; "" if they can."""
        sure = [_ratio(look.gain[one], look.error[one]) for one in self.trained]
        evidence = sum(sure) / math.sqrt(len(sure))
        if evidence > self.settings.evidence:
            return ""
        return f"rewards better than the start's by only {evidence:.1f} standard errors"

    def state(self) -> dict[str, Any]:
        kept = {key: getattr(self, key) for key in ("best", "declines", "rollbacks", "note")}
        return kept | {"looks": [finite(asdict(look)) for look in self.looks]}

    def load_state(self, state: dict[str, Any]) -> None:
        for key in ("best", "declines", "rollbacks", "note"):
            setattr(self, key, state[key])
        self.looks = [Look(**_measured(look)) for look in state["looks"]]


def _measured(look: dict[str, Any]) -> dict[str, Any]:
    """A look as `state` wrote it; what was not finite, which JSON has no word for, is NaN."""
    return {
        key: {one: math.nan if number is None else number for one, number in value.items()}
        if isinstance(value, dict)
        else value
        for key, value in look.items()
    }


def _ratio(gain: float, error: float) -> float:
    """The gain in its standard errors; without any spread only its sign is known."""
    return gain / error if error > 0 else math.copysign(math.inf, gain) if gain else 0.0
