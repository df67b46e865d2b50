"""Keeps a run from ending worse than it began, without labels.

A look (`watch.py`) samples one candidate for each held-out input, always with the same seeds, and
measures how far the weights are from the start model and whether that model, kept frozen, still
finds the results good. The guard turns looks into what to do.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Literal

from suder.config import Guard as Settings
from suder.watch import Look

Verdict = Literal["keep", "hold", "stop", "rollback"]


class Guard:
    """Decides from looks. The rule, which knows no labels:

    - *worth keeping*: image tokens at most `kl_limit` nats from the start, and pictures no worse
      for the frozen start model than the start's own. The latest such weights are the best so far.
    - *declining*: over the limit, or a direction's reward under the frozen start model lower than
      at the start by more than twice its standard error, or collapsed. `patience` declining looks
      in a row end the run, or roll it back. Between the two the run just goes on.
    - *collapsed*: a number that is not finite, or an entropy under `entropy_floor` of the start's.
      Acted on at once.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
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
            if look.gain["generation"] < 0:
                self.note = "held: pictures not better than the start's yet"
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
            if gain < -2 * look.error[direction]:
                return f"{direction} reward under the start model down by {-gain:.3f}"
        return ""

    def state(self) -> dict[str, Any]:
        kept = {key: getattr(self, key) for key in ("best", "declines", "rollbacks", "note")}
        return kept | {"looks": [asdict(look) for look in self.looks]}

    def load_state(self, state: dict[str, Any]) -> None:
        for key in ("best", "declines", "rollbacks", "note"):
            setattr(self, key, state[key])
        self.looks = [Look(**look) for look in state["looks"]]
