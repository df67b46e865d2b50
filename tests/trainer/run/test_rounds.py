"""What a round says of its rewards."""

from __future__ import annotations

import math

import pytest
import torch

from suder.method.rollouts import Rollouts
from suder.method.selection import select
from suder.run.rounds import Scored
from suder.run.said import all_cut, dropped_rows, round_numbers


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_left_out_and_counted(bad: float) -> None:
    reward = torch.tensor([1.0, bad, 3.0, -2.0, -2.0, -2.0, bad, bad, 5.0])
    rollouts = Rollouts(
        "understanding", ("a.png", "b.png", "c.png"), 3, torch.arange(9), torch.arange(10),
        torch.zeros(9), torch.ones(9, dtype=torch.bool),
    )  # fmt: skip
    scored = Scored(rollouts, [], reward, select(reward, 3))
    numbers = round_numbers(scored)
    assert numbers["dropped/understanding"] == 3
    assert numbers["pairs/understanding"] == 1
    assert numbers["reward/understanding"] == pytest.approx(0.5)
    assert numbers["reward_spread/understanding"] == pytest.approx(math.sqrt(2) / 2)
    places = [(row["input"], row["candidate"]) for row in dropped_rows(1, scored)]
    assert places == [("a.png", 1), ("c.png", 0), ("c.png", 1)]


@pytest.mark.parametrize("reward", [-3.0, math.nan])
def test_captions_without_a_reward_are_not_said_to_be_cut(reward: float) -> None:
    """Of empty ones no setting makes candidates."""
    rollouts = Rollouts(
        "understanding", ("a.png",), 2, torch.arange(4), torch.tensor([0, 2, 4]), torch.zeros(4),
        torch.zeros(2, dtype=torch.bool),
    )  # fmt: skip
    none = select(torch.full((2,), math.nan), 2)
    said = all_cut(Scored(rollouts, [], torch.full((2,), reward), none))
    assert bool(said) == (not math.isnan(reward))
