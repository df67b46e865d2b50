"""Chance over all looks of a run stays under its level; `benchmarks/guard_chances.py` has more."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from benchmarks.guard_chances import power, rates
from suder.guard.chance import keep_bound, planned, score, stop_bound
from suder.guard.look import Change
from suder.settings.keeping import Guard as Settings

LEVEL = Settings().false_keep
RUNS = 100
# Three standard errors of a share of RUNS above the level.
MOST = LEVEL + 3 * (LEVEL * (1 - LEVEL) / RUNS) ** 0.5
# Student's quantiles that 5% and 0.1% lie above, from tables.
STUDENT = {4: (2.132, 7.173), 9: (1.833, 4.297), 50: (1.676, 3.261)}


@pytest.mark.parametrize("looks", [1, 2, 12, 36, 1000])
@pytest.mark.parametrize("level", [0.001, 0.05, 0.5])
def test_shares_of_all_looks_are_the_level(level: float, looks: int) -> None:
    chances = [1 - NormalDist().cdf(keep_bound(level, one, looks)) for one in range(1, looks + 1)]
    assert sum(chances) == pytest.approx(level, rel=1e-6)
    assert chances == sorted(chances)
    tests = 20
    stop = 1 - NormalDist().cdf(stop_bound(level, tests, looks))
    assert stop * tests * looks == pytest.approx(level, rel=1e-6)


def test_looks_are_counted_with_the_last() -> None:
    assert [planned(one, 20) for one in (1, 20, 21, 240)] == [1, 1, 2, 12]


@pytest.mark.parametrize("freedom", STUDENT)
def test_few_inputs_estimate_their_error_badly(freedom: int) -> None:
    """A score is what a normal's would be at the same chance."""
    for t, chance in zip(STUDENT[freedom], (0.05, 0.001), strict=True):
        found = score(Change(0.0, t, 1.0, freedom + 1, 1.0))
        assert found == pytest.approx(NormalDist().inv_cdf(1 - chance), rel=1e-3)
        assert score(Change(0.0, -t, 1.0, freedom + 1, 1.0)) == -found


def test_scores_without_a_spread() -> None:
    assert score(Change(0.0, 0.0, 0.0, 9, 1.0)) == 0
    assert score(Change(0.0, -1.0, 0.0, 9, 1.0)) == -math.inf
    assert score(Change(0.0, 0.3, math.inf, 1, 1.0)) == 0  # one input: nothing can be told


@pytest.mark.parametrize(
    ("correlation", "shared"), [(0.0, False), (0.5, True), (0.8, False), (0.95, True)]
)
@pytest.mark.parametrize("looks", [12, 36])
def test_runs_without_a_gain_are_kept_and_stopped_seldom(
    looks: int, correlation: float, shared: bool
) -> None:
    kept, naive, stopped = rates(7, RUNS, looks, correlation, shared)
    assert kept <= MOST
    assert stopped <= MOST
    if not shared and correlation == 0.8:
        assert naive > 0.2  # what one look's bound did


def test_gains_are_seen() -> None:
    """As of the experiment's runs: 2.5 standard errors of each direction by the end, and more."""
    at_end = [power(3, 60, 12, 0.8, gain) for gain in (1.0, 2.5, 4.0)]
    assert at_end == sorted(at_end)
    assert at_end[1] > 0.75
    assert at_end[2] > 0.97
    assert np.isfinite(at_end).all()
