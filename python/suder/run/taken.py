"""The first phase of a round that samples nothing: its candidates are taken from files."""

from __future__ import annotations

from pathlib import Path

from suder.inputs.data import Inputs
from suder.inputs.files import DataError
from suder.method.directions import active
from suder.method.rollouts import Rollouts, read_conditions
from suder.models.base import Condition, UnifiedModel
from suder.rollouts.offline import Offline
from suder.run.rounds import keep_candidates, known_candidates, turn_of
from suder.settings.config import TrainConfig


def taken_phase(
    folder: Path,
    policy: UnifiedModel,
    inputs: Inputs,
    config: TrainConfig,
    index: int,
    source: Offline,
) -> tuple[list[Rollouts], dict[str, Condition]]:
    """As `sample_phase`, with candidates of `source`.

    Raises:
        DataError: no input of the round can be read any more.
    """
    if known := known_candidates(folder, policy, inputs):
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
    keep_candidates(folder, rounds)
    return rounds, conditions
