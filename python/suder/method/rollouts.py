"""What a round samples, as flat tensors that go to disk and come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from suder.models.base import Direction
from suder.storage.files import read_tensors, write_tensors


@dataclass(frozen=True)
class Rollouts:
    """One direction's candidates of one round: C inputs with `group` candidates each, B in all.

    Attributes:
        inputs: C paths of pictures (understanding) or prompts (generation).
        tokens: int64 `[T]`, all candidates one after the other; text ends with EOS if it ended.
        cu_seqlens: int64 `[B + 1]`, where each candidate begins.
        logprob: float32 `[T]`, under the distribution each token was drawn from.
        finished: bool `[B]`, False for text cut off at its longest.
        lost: inputs that could not be read any more, or do not fit the model, with the reason.
    """

    direction: Direction
    inputs: tuple[str, ...]
    group: int
    tokens: torch.Tensor
    cu_seqlens: torch.Tensor
    logprob: torch.Tensor
    finished: torch.Tensor
    lost: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return self.cu_seqlens.numel() - 1

    def take(self, rows: range) -> Rollouts:
        """The candidates of some inputs in a row (views)."""
        ends = self.cu_seqlens[rows.start * self.group : rows.stop * self.group + 1]
        begin, end = int(ends[0]), int(ends[-1])
        return replace(
            self,
            inputs=self.inputs[rows.start : rows.stop],
            tokens=self.tokens[begin:end],
            cu_seqlens=ends - begin,
            logprob=self.logprob[begin:end],
            finished=self.finished[rows.start * self.group : rows.stop * self.group],
        )

    def sequences(self) -> list[torch.Tensor]:
        """The candidates' tokens, B tensors of int64 (views)."""
        return list(self.tokens.split(self.cu_seqlens.diff().tolist()))

    def pictures(self) -> torch.Tensor:
        """The candidates of the generation direction as int64 `[B, I]`."""
        return self.tokens.view(len(self), -1)

    def targets(self) -> torch.Tensor | list[torch.Tensor]:
        """The candidates in the form the model's `forward` takes."""
        return self.pictures() if self.direction == "generation" else self.sequences()


def save_rollouts(path: Path, rounds: Sequence[Rollouts]) -> None:
    """All directions' candidates of a round in one file, so that a phase is there or not."""
    tensors: dict[str, torch.Tensor] = {}
    meta: dict[str, Any] = {}
    for one in rounds:
        for name in ("tokens", "cu_seqlens", "logprob", "finished"):
            tensors[f"{one.direction}/{name}"] = getattr(one, name)
        meta[one.direction] = {"inputs": one.inputs, "group": one.group, "lost": one.lost}
    write_tensors(path, tensors, meta)


def load_rollouts(path: Path) -> list[Rollouts]:
    tensors, meta = read_tensors(path)
    rounds = []
    for direction, about in meta.items():
        fields = {
            name: tensors[f"{direction}/{name}"]
            for name in ("tokens", "cu_seqlens", "logprob", "finished")
        }
        lost = tuple((path, why) for path, why in about["lost"])
        rounds.append(
            Rollouts(
                cast(Direction, direction),
                tuple(about["inputs"]),
                about["group"],
                **fields,
                lost=lost,
            )
        )
    return rounds
