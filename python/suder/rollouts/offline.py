"""Candidates of files in place of sampling: the groups that a run trains on, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from suder.inputs.data import Inputs, turn_indices
from suder.inputs.files import DataError
from suder.method.directions import trained
from suder.method.rollouts import Rollouts
from suder.models.base import DIRECTIONS, Direction
from suder.rollouts.files import digests, find_files, read_table
from suder.rollouts.pairs import groups_of
from suder.settings.config import TrainConfig
from suder.storage.shown import counted

Group = list[int]  # rows of one input's candidates


@dataclass
class Offline:
    """The rows of files of rollouts, by groups.

    Attributes:
        files: a hash of each file, by its name.
        group: candidates of the largest group; smaller ones are filled up with some of no reward.
        groups: of each direction those that may be trained on.
    """

    table: Any
    files: dict[str, str]
    group: int
    groups: dict[Direction, list[Group]]
    _columns: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, config: TrainConfig) -> Offline:
        """The files of `data.rollouts`, and whether a run of these settings can use them.

        Raises:
            DataError: there are none, or they lack what the run needs.
        """
        place = config.data.rollouts
        assert place is not None
        files = find_files(place)
        table = read_table(files).combine_chunks()
        found = cls(table, digests(files), 0, {})
        reward, valid = found.column("reward"), found.column("valid")
        names = found.column("direction")
        if other := set(names) - set(DIRECTIONS):
            raise DataError(f"{place}: `direction` takes {' or '.join(DIRECTIONS)}, got {other}")
        for rows in groups_of(table).values():
            one: Direction = names[rows[0]]
            # Groups without any reward would teach nothing, unless they get one.
            if config.reward.rescore or any(valid[i] and reward[i] is not None for i in rows):
                found.groups.setdefault(one, []).append(rows)
        for direction in trained(config):
            if not found.groups.get(direction):
                raise DataError(f"{place} holds {_what_is_missing(direction, names)}")
        found.group = max(len(rows) for groups in found.groups.values() for rows in groups)
        if found.group < 2:
            raise DataError(f"{place}: every input has one candidate, and none to compare it with")
        return found

    def column(self, name: str) -> list[Any]:
        if name not in self._columns:
            self._columns[name] = self.table[name].to_pylist()
        return self._columns[name]

    def inputs(self, direction: Direction) -> dict[str, str | None]:
        """The inputs of a direction's groups, each once, and the digest that its row tells."""
        names, told = self.column("input"), self.column("digest")
        return {names[rows[0]]: told[rows[0]] for rows in self.groups.get(direction, ())}

    def keep(self, inputs: Inputs) -> None:
        """Leaves out groups whose input is not among those to train on.

        Raises:
            DataError: none is left.
        """
        names = self.column("input")
        for direction in self.groups:
            known = set(inputs.images if direction == "understanding" else inputs.prompts)
            self.groups[direction] = [
                rows for rows in self.groups[direction] if names[rows[0]] in known
            ]
            if not self.groups[direction]:
                raise DataError(
                    f"{', '.join(self.files)}: no input of {direction} is left to train on; "
                    "data/dropped.jsonl says why, and data.heldout keeps some from training"
                )

    def told(self, config: TrainConfig) -> str:
        """A sentence of what there is and how long a pass over it takes."""
        most = max(len(self.groups[direction]) for direction in trained(config))
        each = min(config.inputs_per_round, most)
        counts = ", ".join(f"{len(self.groups[one])} of {one}" for one in trained(config))
        rounds = -(-most // each) * (2 if config.directions == "alternating" else 1)
        return (
            f"rollouts: groups to learn from: {counts}, with up to {self.group} candidates; one "
            f"pass over them is {counted(rounds, 'round')}"
        )

    def turn(self, direction: Direction, config: TrainConfig, turn: int) -> list[int]:
        """The groups of a round: a new shuffle of all of them each pass."""
        total = len(self.groups[direction])
        key = config.seed, direction
        return turn_indices(total, config.inputs_per_round, turn, *key)

    def inputs_of(self, direction: Direction, numbers: Sequence[int]) -> list[str]:
        names = self.column("input")
        return [names[self.groups[direction][i][0]] for i in numbers]

    def usable(
        self, direction: Direction, numbers: Sequence[int], inputs: Sequence[str]
    ) -> list[int]:
        """Of these groups those whose inputs could be read: `inputs`, in order."""
        kept: list[int] = []
        for number, name in zip(numbers, self.inputs_of(direction, numbers), strict=True):
            if len(kept) < len(inputs) and inputs[len(kept)] == name:
                kept.append(number)
        return kept

    def rollouts(
        self, direction: Direction, numbers: Sequence[int], lost: Sequence[tuple[str, str]] = ()
    ) -> Rollouts:
        """Candidates as if they had been sampled now."""
        rows = self._filled(direction, numbers)
        tokens = [self.table["tokens"][row].as_py() for row, _ in rows]
        logprob = [self.table["logprob"][row].as_py() for row, _ in rows]
        lengths = torch.tensor([len(one) for one in tokens], dtype=torch.int64)
        known = [
            one if one is not None else [0.0] * len(ids)
            for one, ids in zip(logprob, tokens, strict=True)
        ]
        finished = self.column("finished")
        return Rollouts(
            direction=direction,
            inputs=tuple(self.inputs_of(direction, numbers)),
            group=self.group,
            tokens=torch.tensor([token for ids in tokens for token in ids], dtype=torch.int64),
            cu_seqlens=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
            logprob=torch.tensor([value for one in known for value in one]),
            finished=torch.tensor([finished[row] for row, _ in rows]),
            lost=tuple(lost),
        )

    def reward(self, direction: Direction, numbers: Sequence[int]) -> torch.Tensor:
        """float32 `[C * group]`: what the files say; NaN where a candidate is not valid."""
        told, valid = self.column("reward"), self.column("valid")
        return torch.tensor(
            [
                told[row] if own and valid[row] and told[row] is not None else torch.nan
                for row, own in self._filled(direction, numbers)
            ]
        )

    def fill(self, direction: Direction, numbers: Sequence[int]) -> torch.Tensor:
        """bool `[C * group]`: the candidates that only fill a group up."""
        return torch.tensor([not own for _, own in self._filled(direction, numbers)])

    def _filled(self, direction: Direction, numbers: Sequence[int]) -> list[tuple[int, bool]]:
        """Rows of whole groups, and whether each is a candidate of its own."""
        found = []
        for number in numbers:
            rows = self.groups[direction][number]
            missing = self.group - len(rows)
            found += [*((row, True) for row in rows), *((rows[0], False) for _ in range(missing))]
        return found


def fitted(config: TrainConfig) -> TrainConfig:
    """The settings with as many candidates as the files' groups have."""
    if config.data.rollouts is None:
        return config
    return config.model_copy(update={"candidates": Offline.read(config).group})


def _what_is_missing(direction: Direction, names: Sequence[str]) -> str:
    if direction in names:
        return (
            f"nothing of {direction} to learn from, for none of its rows is valid, or they have no "
            "reward: `suder score` gives them some, and so does --rescore (reward.rescore)"
        )
    there = ", ".join(sorted(set(names)))
    return (
        f"nothing of {direction} to learn from, its rows are of {there}: set `directions` to what "
        "it holds"
    )
