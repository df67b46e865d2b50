"""Paired differences of fractions: against plain loops, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t

from suder.evaluation.paired import Fraction, paired_bootstrap, paired_ratio_interval
from suder.evaluation.statistics import paired_interval

CLUSTERS = np.repeat(np.arange(30), 4)


def precision(said, true):
    return Fraction((said & true).astype(float), said.astype(float))


def drawn(seed, count=120):
    rng = np.random.default_rng(seed)
    true = rng.random(count) < 0.5
    before = np.where(rng.random(count) < 0.7, true, ~true)
    after = np.where(rng.random(count) < 0.85, true, ~true)
    return precision(before, true), precision(after, true)


def test_accuracies_have_the_paired_interval():
    rng = np.random.default_rng(0)
    before, after = (rng.random(120) < p for p in (0.5, 0.7))
    one = np.ones(120)
    found = paired_ratio_interval(Fraction(before * 1.0, one), Fraction(after * 1.0, one), CLUSTERS)
    assert found == paired_interval(before, after, CLUSTERS)
    # And where some items do not count, that of those that do.
    some = (rng.random(120) < 0.6) * 1.0
    found = paired_ratio_interval(
        Fraction(before * some, some), Fraction(after * some, some), CLUSTERS
    )
    kept = some > 0
    assert found == paired_interval(before[kept], after[kept], CLUSTERS[kept])


def test_the_jackknife_of_a_difference_of_ratios():
    base, tuned = drawn(1)
    found = paired_ratio_interval(base, tuned, CLUSTERS)

    def difference(keep):
        return tuned.top[keep].sum() / tuned.bottom[keep].sum() - (
            base.top[keep].sum() / base.bottom[keep].sum()
        )

    assert found.estimate == pytest.approx(difference(np.ones(120, bool)), abs=1e-12)
    without = np.array([difference(one != CLUSTERS) for one in range(30)])
    sizes = [np.bincount(CLUSTERS, weights=one.bottom) for one in (base, tuned)]
    degrees = min(one.sum() ** 2 / np.square(one).sum() - 1 for one in sizes)
    half = t.ppf(0.975, degrees) * math.sqrt(29 / 30 * np.square(without - found.estimate).sum())
    assert found.high - found.estimate == pytest.approx(half, rel=1e-9)
    assert found.estimate - found.low == pytest.approx(half, rel=1e-9)
    assert (found.n, found.clusters) == (120, 30)


def test_the_bootstrap_is_that_of_a_plain_loop():
    base, tuned = drawn(2)
    low, high = paired_bootstrap(base, tuned, CLUSTERS)
    rng = np.random.default_rng(5)
    values = []
    for _ in range(4000):
        rows = np.concatenate([np.flatnonzero(c == CLUSTERS) for c in rng.integers(0, 30, 30)])
        values.append(
            tuned.top[rows].sum() / tuned.bottom[rows].sum()
            - base.top[rows].sum() / base.bottom[rows].sum()
        )
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.01)
    assert paired_bootstrap(base, tuned, CLUSTERS) == (low, high)
    other = paired_bootstrap(base, tuned, [f"c{one}" for one in CLUSTERS])
    assert other == (low, high)


def test_what_nobody_said_has_no_difference():
    nothing = Fraction(np.zeros(4), np.zeros(4))
    some = Fraction(np.ones(4), np.ones(4))
    for pair in ((nothing, some), (some, nothing), (nothing, nothing)):
        assert math.isnan(paired_ratio_interval(*pair, range(4)).estimate)
        assert math.isnan(paired_bootstrap(*pair, range(4))[0])


def test_intervals_of_precision_hold_the_truth():
    """Of 400 simulated comparisons with 30 pictures of 4 alike questions, 95% or nearly so."""
    truth = 0.85 - 0.70  # precision of what is right by chance p, where half is true
    held = np.mean([
        found.low <= truth <= found.high
        for found in (paired_ratio_interval(*drawn(seed), CLUSTERS) for seed in range(400))
    ])  # fmt: skip
    assert 0.92 <= held <= 0.99
