"""What the guard sees of some weights: numbers, each beside the start model's."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from suder.storage.files import finite


@dataclass(frozen=True)
class Change:
    """A statistic of some weights' samples, against the start's samples of the same inputs.

    Attributes:
        mean: of the look.
        change: mean paired difference to the start's look, input by input.
        error: the standard error of `change`; infinite where it cannot be told.
        count: inputs that were compared.
        spread: the start's own: the standard deviation over its samples, which are repeated draws.
    """

    mean: float
    change: float
    error: float
    count: int
    spread: float


@dataclass(frozen=True)
class Look:
    """What the guard sees of some weights.

    Attributes:
        kl: nats per token to the start model, by direction (k3 on the model's own samples).
        entropy: nats per token of what was drawn from, by direction.
        reward: dual reward under the frozen start model, by direction.
        statistics: what no reward contains, such as "generation/dark".
    """

    round: int
    kl: dict[str, float]
    entropy: dict[str, float]
    reward: dict[str, Change]
    statistics: dict[str, Change] = field(default_factory=dict)

    def log(self) -> dict[str, float]:
        """For the run's log; `statistics` by their means."""
        numbers = {
            f"guard/{name}/{direction}": value
            for name in ("kl", "entropy")
            for direction, value in getattr(self, name).items()
        }
        for direction, one in self.reward.items():
            told = {"reward": one.mean, "gain": one.change, "error": one.error}
            numbers |= {f"guard/{name}/{direction}": value for name, value in told.items()}
        for name, one in self.statistics.items():
            direction, statistic = name.split("/")
            numbers[f"guard/{statistic}/{direction}"] = one.mean
        return numbers

    def state(self) -> dict[str, Any]:
        """As JSON has it; what is not finite, which JSON has no word for, is None."""
        tree: dict[str, Any] = finite(asdict(self))
        return tree

    @classmethod
    def load(cls, state: dict[str, Any]) -> Look:
        """From what `state` returned."""
        reward, statistics = (
            {name: Change(**_numbers(one, math.inf)) for name, one in state[kind].items()}
            for kind in ("reward", "statistics")
        )
        kl, entropy = (_numbers(state[name]) for name in ("kl", "entropy"))
        return cls(state["round"], kl, entropy, reward, statistics)


def compared(each: Tensor, first: Tensor, spread: float) -> Change:
    """Of a statistic's values, float64 `[C]`, one an input; NaN where an input has none."""
    change = (each - first)[(each - first).isfinite()]
    count = change.numel()
    return Change(
        mean=float(each[each.isfinite()].mean()) if each.isfinite().any() else math.nan,
        change=float(change.mean()) if count else 0.0,
        error=float(change.std()) / math.sqrt(count) if count > 1 else math.inf,
        count=count,
        spread=spread,
    )


def spread_of(values: Tensor) -> float:
    """Of the start's samples `[B]`: their standard deviation, but no less than what one sample more
    or less would make of a share, and a twentieth of the mean, where all samples are alike.
    """
    values = values[values.isfinite()].double()
    if not values.numel():
        return math.inf  # nothing to compare with
    spread = float(values.std()) if values.numel() > 1 else 0.0
    least: float = values.numel() ** -0.5
    return max(spread, least, 0.05 * abs(float(values.mean())))


def mean_of(values: Tensor, inputs: int) -> Tensor:
    """The mean of each input's candidates, float64 `[C]`; those without a finite value left out."""
    values = values.double().view(inputs, -1)
    return values.masked_fill(~values.isfinite(), torch.nan).nanmean(1)


def _numbers(tree: dict[str, Any], error: float = math.nan) -> dict[str, Any]:
    missing = {"error": error, "spread": error}
    return {
        name: missing.get(name, math.nan) if value is None else value
        for name, value in tree.items()
    }
