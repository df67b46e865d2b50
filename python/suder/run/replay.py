"""Inputs that taught nothing come back: a pool of them, part of a run's state.

A group whose candidates were all dropped, or all as good as one another, has no gradient. Met again
with later weights it may have one (sample replay of Internal Gap, arXiv 2507.16663).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from suder.models.base import DIRECTIONS, Direction
from suder.run.rounds import Scored
from suder.settings.config import TrainConfig

REST = 4  # rounds: weights that have hardly moved draw the same
HELD = 32  # inputs of a direction for each that a round may take; of more, the oldest leave


class Replay:
    """The pool of each direction: inputs, and the round that each was last of no use in."""

    def __init__(self, config: TrainConfig) -> None:
        self.most = config.data.replay
        self.pool: dict[Direction, dict[str, int]] = {direction: {} for direction in DIRECTIONS}

    def again(self, direction: Direction, index: int, besides: Sequence[str]) -> list[str]:
        """What round `index` takes up again, besides its turn of the inputs: the oldest first."""
        rested = [one for one, since in self.pool[direction].items() if index - since >= REST]
        turn = set(besides)
        return [one for one in rested if one not in turn][: self.most]

    def learn(self, index: int, scored: Sequence[Scored]) -> dict[str, float]:
        """Takes in and lets go of inputs by what a round found of them; counts, for the log."""
        if not self.most:
            return {}
        numbers: dict[str, float] = {}
        for one in scored:
            direction = one.rollouts.direction
            pool = self.pool[direction]
            useful: dict[str, bool] = {}
            for name, paired in zip(
                one.rollouts.inputs, one.selection.paired.tolist(), strict=True
            ):
                useful[name] = useful.get(name, False) or paired
            numbers[f"replayed/{direction}"] = float(sum(name in pool for name in useful))
            for name in (*useful, *(name for name, _ in one.rollouts.lost)):
                pool.pop(name, None)
            pool |= {name: index for name, was in useful.items() if not was}
            for name in list(pool)[: max(0, len(pool) - HELD * self.most)]:
                del pool[name]
            numbers[f"replay_pool/{direction}"] = float(len(pool))
        return numbers

    def state(self) -> dict[str, Any]:
        pools = {direction: list(pool.items()) for direction, pool in self.pool.items()}
        return {"replay": pools} if self.most else {}

    def load_state(self, state: dict[str, Any]) -> None:
        for direction, pool in state.get("replay", {}).items():
            self.pool[direction] = {name: since for name, since in pool}
