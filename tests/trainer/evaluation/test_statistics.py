"""Paired bootstrap intervals and reward accuracy against plain loops and known distributions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from suder.evaluation.statistics import (
    Interval,
    mean_interval,
    paired_interval,
    ratio_interval,
    reward_accuracy,
)


def test_estimate_and_interval_of_independent_items_match_the_normal_approximation():
    rng = np.random.default_rng(0)
    base, tuned = rng.random(2000) < 0.4, rng.random(2000) < 0.5
    found = paired_interval(base, tuned, range(2000))
    difference = tuned.astype(float) - base
    half = 1.96 * difference.std() / math.sqrt(2000)
    assert found.estimate == pytest.approx(difference.mean(), abs=1e-12)
    assert found.low == pytest.approx(found.estimate - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.estimate + half, abs=0.1 * half)
    assert (found.n, found.clusters) == (2000, 2000)


def test_identical_items_in_a_cluster_add_nothing():
    """100 prompts judged 10 times alike hold 100 observations, not 1000."""
    rng = np.random.default_rng(1)
    values = rng.random(100) < 0.5
    once = mean_interval(values, range(100))
    repeated = mean_interval(np.repeat(values, 10), np.repeat(np.arange(100), 10))
    assert repeated.estimate == once.estimate
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=1e-12)
    naive = mean_interval(np.repeat(values, 10), range(1000))
    assert repeated.high - repeated.low > 2.5 * (naive.high - naive.low)


def test_interval_covers_the_truth_95_times_in_100():
    """Clusters of correlated items and of unequal sizes, 400 simulated evaluations."""
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(400):
        sizes = rng.integers(1, 8, size=80)
        chance = rng.beta(2, 3, size=80)  # mean 0.4, shared by a cluster's items
        clusters = np.repeat(np.arange(80), sizes)
        values = rng.random(sizes.sum()) < chance[clusters]
        found = mean_interval(values, clusters, resamples=500, seed=trial)
        covered += found.low <= 0.4 <= found.high
    assert 0.915 <= covered / 400 <= 0.975


def test_same_seed_same_bits_and_clusters_may_be_named_by_words():
    values = np.random.default_rng(3).random(200)
    words = [f"prompt {i % 50}" for i in range(200)]
    assert mean_interval(values, words, seed=3) == mean_interval(values, words, seed=3)
    numbers = [i % 50 for i in range(200)]
    assert mean_interval(values, words, seed=3) == mean_interval(values, numbers, seed=3)
    assert mean_interval(values, words, seed=3) != mean_interval(values, words, seed=4)


def test_ratio_weights_items_by_the_denominator():
    found = ratio_interval([1.0, 30.0], [2.0, 40.0], ["a", "b"])
    assert found.estimate == pytest.approx(31 / 42, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((0.5, 0.75), abs=1e-12)


def test_nothing_to_count_gives_nan_not_a_number_that_looks_like_a_result():
    for found in (mean_interval([], []), ratio_interval([0.0], [0.0], ["a"])):
        assert math.isnan(found.estimate)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert not found.excludes_zero()


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.01, 0.2, True), (-0.2, -0.01, True), (-0.1, 0.1, False)]
)
def test_excludes_zero(low: float, high: float, expected: bool):
    assert Interval(0.0, low, high, 10, 10).excludes_zero() is expected


def test_sets_of_different_length_are_refused():
    with pytest.raises(ValueError, match="not judged on one set"):
        paired_interval([True], [True, False], ["a", "b"])
    with pytest.raises(ValueError, match="one length"):
        mean_interval([1.0, 2.0], ["a"])


def test_reward_accuracy_equals_the_loop_over_pairs():
    rng = np.random.default_rng(4)
    reward = rng.integers(0, 4, size=(40, 6)).astype(float)  # with ties
    for nothing in (np.nan, np.inf, -np.inf):
        reward[rng.random((40, 6)) < 0.05] = nothing
    correct = rng.random((40, 6)) < 0.4
    wins = pairs = 0.0
    for group in range(40):
        for right, wrong in itertools.product(range(6), range(6)):
            a, b = reward[group, right], reward[group, wrong]
            if correct[group, right] and not correct[group, wrong] and np.isfinite([a, b]).all():
                pairs += 1
                wins += 1.0 if a > b else 0.5 if a == b else 0.0
    found = reward_accuracy(reward, correct)
    assert found.estimate == pytest.approx(wins / pairs, abs=1e-12)
    assert found.n == pairs
    assert found.low < found.estimate < found.high


def test_reward_accuracy_at_its_ends():
    correct = np.array([[True, False, False], [False, True, True], [True, True, True]])
    assert reward_accuracy(correct.astype(float), correct).estimate == 1.0
    assert reward_accuracy(-correct.astype(float), correct).estimate == 0.0
    assert reward_accuracy(np.zeros((3, 3)), correct).estimate == 0.5
    assert math.isnan(reward_accuracy(np.zeros((1, 3)), correct[2:]).estimate)
    rng = np.random.default_rng(5)
    random = reward_accuracy(rng.normal(size=(2000, 8)), rng.random((2000, 8)) < 0.3)
    assert random.low < 0.5 < random.high
    assert random.high - random.low < 0.03
