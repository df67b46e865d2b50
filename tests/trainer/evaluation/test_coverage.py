"""The short form of `python -m tests.trainer.evaluation.coverage`: a nominal 95% is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tolerances import TOLERANCES
from tests.trainer.evaluation.coverage import HARDEST, Scenario, coverage, scenarios

TRIALS = 150
EVERY = list(scenarios())
SHORT = TOLERANCES["coverage", "cpu", torch.float64]["atol"]


@pytest.mark.parametrize("kind", sorted({scenario.kind for scenario in EVERY}))
def test_intervals_cover_what_they_say(kind: str):
    """Each simulated evaluation within chance, and all of a kind together within a point or two."""
    ours: list[Scenario] = [one for one in EVERY if one.kind == kind and one.name != HARDEST]
    held = {one.name: coverage(one, TRIALS, old=False)[0][0] for one in ours}
    chance = 3 * np.sqrt(0.95 * 0.05 / TRIALS)
    low = {name: share for name, share in held.items() if share < 0.95 - SHORT - chance}
    assert not low, f"covered too seldom: {low}"
    assert np.mean(list(held.values())) > 0.95 - SHORT


def test_the_simulation_finds_an_interval_that_is_too_short():
    """That of the bootstrap over ten prompts, which this project used before."""
    ten = next(one for one in EVERY if one.name.startswith("digits, 90% right"))
    (ours, old), (width, before) = coverage(ten, TRIALS)
    assert old < 0.8 < ours
    assert before < width
