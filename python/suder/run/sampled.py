"""The first phase of a round: its candidates, and those that hold a direction to the start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from suder import ranks
from suder.inputs.data import Inputs, turn_indices
from suder.method.conditions import Conditions, read_conditions
from suder.method.directions import active, held
from suder.method.rollouts import Rollouts, load_rollouts, save_rollouts
from suder.method.sampling import sample_rollouts
from suder.models.base import Condition, Direction, UnifiedModel
from suder.run.phases import drop_from
from suder.settings.config import TrainConfig
from suder.storage.files import seed_of

Again = Callable[[Direction, int, Sequence[str]], list[str]]


@dataclass(frozen=True)
class Sampled:
    """What a round has drawn.

    Attributes:
        rollouts: of each direction that it trains; held: of the one that it holds to the start.
        conditions: by direction, what the model takes of their inputs.
    """

    rollouts: list[Rollouts]
    held: Rollouts | None
    conditions: dict[str, Condition]

    def anchor(self) -> Anchor | None:
        if self.held is None:
            return None
        return Anchor(self.held, self.conditions[self.held.direction])


@dataclass(frozen=True)
class Anchor:
    """Samples of a direction that a round holds to the start."""

    rollouts: Rollouts
    condition: Condition


@torch.no_grad()
def sample_phase(
    folder: Path,
    policy: UnifiedModel,
    inputs: Inputs,
    config: TrainConfig,
    index: int,
    at_once: int,
    again: Again | None = None,
) -> Sampled:
    """Candidates for the round's inputs in the directions that are trained in it, one sample for
    each input of a direction that is held, and what the model takes of those inputs: pictures are
    read once a round.

    Candidates on disk of a picture that is gone by now, or another, can be neither scored nor
    learnt from. Then the round begins again without it.

    Args:
        at_once: candidates, at most, of those that are drawn.
        again: what a direction's round takes up besides its turn of the inputs, given those.
    """
    if known := known_candidates(folder, policy, inputs, config, index):
        return known
    rounds = []
    conditions: dict[str, Condition] = {}
    for direction in active(config, index):
        found = _round_inputs(policy, direction, inputs, config, index, again)
        conditions[direction] = found.values
        rounds.append(
            sample_rollouts(
                policy,
                direction,
                found.inputs,
                config.candidates,
                config.sampling,
                sampling_seed(config, index, direction),
                found.values,
                found.lost,
                at_once,
            )
        )
    if (kept := held_candidates(policy, inputs, config, index, at_once)) is not None:
        rounds.append(kept.rollouts)
        conditions[kept.rollouts.direction] = kept.condition
    keep_candidates(folder, rounds)
    return sampled(rounds, conditions, config, index)


def held_candidates(
    policy: UnifiedModel, inputs: Inputs, config: TrainConfig, index: int, at_once: int
) -> Anchor | None:
    """One sample for each of a round's inputs of the direction that is held to the start."""
    direction = held(config, index)
    if direction is None:
        return None
    found = _round_inputs(policy, direction, inputs, config, index)
    seed = seed_of(config.seed, index, "anchor", direction)
    drawn = sample_rollouts(
        policy, direction, found.inputs, 1, config.sampling, seed, found.values, found.lost, at_once
    )
    return Anchor(drawn, found.values)


def sampled(
    rounds: list[Rollouts], conditions: dict[str, Condition], config: TrainConfig, index: int
) -> Sampled:
    trained = active(config, index)
    resting = [one for one in rounds if one.direction not in trained]
    drawn = [one for one in rounds if one.direction in trained]
    return Sampled(drawn, resting[0] if resting else None, conditions)


def known_candidates(
    folder: Path, policy: UnifiedModel, inputs: Inputs, config: TrainConfig, index: int
) -> Sampled | None:
    """What an earlier life of the run has kept of the round, if its pictures are as they were."""
    path = folder / "sample.safetensors"
    known = ranks.from_first(lambda: load_rollouts(path) if path.exists() else None)
    if known is None:
        return None
    again: dict[str, Conditions] = {
        one.direction: read_conditions(policy, one.direction, one.inputs, inputs.digests)
        for one in known
    }
    if not any(one.lost for one in again.values()):
        return sampled(known, {name: one.values for name, one in again.items()}, config, index)
    with ranks.each():
        if ranks.first():
            drop_from(folder, "sample")
    return None


def keep_candidates(folder: Path, rounds: list[Rollouts]) -> None:
    with ranks.each():
        if ranks.first():
            save_rollouts(folder / "sample.safetensors", rounds)


def sampling_seed(config: TrainConfig, index: int, direction: Direction) -> int:
    """Which a round's candidates are drawn by."""
    return seed_of(config.seed, index, "sample", direction)


def turn_of(config: TrainConfig, index: int) -> int:
    """How often a direction had its turn before round `index`."""
    return (index - 1) // 2 if config.directions == "alternating" else index - 1


def _round_inputs(
    policy: UnifiedModel,
    direction: Direction,
    inputs: Inputs,
    config: TrainConfig,
    index: int,
    again: Again | None = None,
) -> Conditions:
    """The round's turn of the inputs, or of what else can be read if all of those are lost.

    Paired inputs have their turn together: pictures, and their own prompts.
    """
    pool = inputs.images if direction == "understanding" else inputs.prompts
    turn = turn_of(config, index)
    key = "pairs" if config.data.pairing else direction
    order = turn_indices(len(pool), config.inputs_per_round, turn, config.seed, key)
    asked = [pool[i] for i in order]
    asked += again(direction, index, asked) if again else []
    found = read_conditions(policy, direction, asked, inputs.digests)
    if found.inputs:
        return found
    others = [one for one in dict.fromkeys(pool) if one not in set(asked)]
    instead = read_conditions(policy, direction, others, inputs.digests, most=len(asked))
    return instead._replace(lost=found.lost)
