"""The first phase of a round that samples nothing: its candidates are taken from files."""

from __future__ import annotations

from pathlib import Path

from suder.inputs.data import Inputs
from suder.inputs.files import DataError
from suder.method.conditions import read_conditions
from suder.method.directions import active
from suder.models.base import Condition, UnifiedModel
from suder.rollouts.offline import Offline
from suder.run.sampled import (
    Sampled,
    held_candidates,
    keep_candidates,
    known_candidates,
    sampled,
    turn_of,
)
from suder.settings.config import TrainConfig


def taken_phase(
    folder: Path,
    policy: UnifiedModel,
    inputs: Inputs,
    config: TrainConfig,
    index: int,
    at_once: int,
    source: Offline,
) -> Sampled:
    """As `sample_phase`, with candidates of `source`; only those that hold a direction are drawn.

    Raises:
        DataError: no input of the round can be read any more.
    """
    if known := known_candidates(folder, policy, inputs, config, index):
        return known
    rounds = []
    conditions: dict[str, Condition] = {}
    for direction in active(config, index):
        asked = source.turn(direction, config, turn_of(config, index))
        names = source.inputs_of(direction, asked)
        found = read_conditions(policy, direction, names, inputs.digests)
        if not found.inputs:
            raise DataError(f"round {index}: no {direction} input is left: {found.lost[0][1]}")
        numbers = source.usable(direction, asked, found.inputs)
        conditions[direction] = found.values
        rounds.append(source.rollouts(direction, numbers, found.lost))
    if (kept := held_candidates(policy, inputs, config, index, at_once)) is not None:
        rounds.append(kept.rollouts)
        conditions[kept.rollouts.direction] = kept.condition
    keep_candidates(folder, rounds)
    return sampled(rounds, conditions, config, index)
