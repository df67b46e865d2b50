"""Intervals and reward accuracy against plain loops, textbooks and known distributions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from suder.evaluation.pooling import pooled_interval, seeds_tell
from suder.evaluation.statistics import (
    Interval,
    jackknife,
    mean_interval,
    paired_interval,
    quantile,
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


def test_clusters_may_be_named_by_words_and_their_order_says_nothing():
    values = np.random.default_rng(3).random(200)
    words = [f"prompt {i % 50}" for i in range(200)]
    found = mean_interval(values, words)
    assert mean_interval(values, [i % 50 for i in range(200)]) == found
    assert mean_interval(values[::-1], words[::-1]) == pytest.approx(found, abs=1e-12)


def test_ratio_weights_items_by_the_denominator():
    found = ratio_interval([1.0, 30.0], [2.0, 40.0], ["a", "b"])
    assert found.estimate == pytest.approx(31 / 42, abs=1e-12)
    assert (found.n, found.clusters) == (2, 2)
    silent = ratio_interval([1.0, 30.0, 0.0], [2.0, 40.0, 0.0], ["a", "b", "c"])
    assert silent[:3] == found[:3], "a cluster with nothing to count is none"


def test_equal_clusters_give_students_t_on_their_means():
    """Far from the ends the interval is the textbook's: mean +- t * std / sqrt(clusters)."""
    rng = np.random.default_rng(6)
    values = (rng.random((12, 40)) < rng.uniform(0.35, 0.65, 12)[:, None]) * 1.0
    found = mean_interval(values.ravel(), np.repeat(np.arange(12), 40))
    means = values.mean(1)
    half = 2.200985160082949 * means.std(ddof=1) / math.sqrt(12)  # t of 11 degrees, 0.975
    assert found.estimate == pytest.approx(means.mean(), abs=1e-12)
    spread = jackknife(values.ravel(), np.ones(480), np.repeat(np.arange(12), 40))
    assert spread.variance == pytest.approx(means.var(ddof=1) / 12, rel=1e-9)
    assert spread.degrees == pytest.approx(11)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)


def test_intervals_never_leave_their_range_nor_close_on_nothing_seen():
    """All right, none changed, one cluster: the bootstrap gives a width of 0 to each."""
    tens = np.repeat(np.arange(10), 60)
    sure = mean_interval(np.ones(600), tens)
    assert sure.high == 1.0
    assert 0.6 < sure.low < 0.75, "ten prompts all right: as ten items, at t of 9 degrees"
    still = paired_interval(np.ones(600), np.ones(600), tens)
    assert still.low == pytest.approx(-still.high)
    assert 0.15 < still.high < 0.3
    one = mean_interval([1, 0, 1, 1], ["a"] * 4)
    assert one.low < 0.05
    assert one.high > 0.95
    worse = paired_interval(np.ones(40), np.zeros(40), np.repeat(np.arange(4), 10))
    assert worse.low == -1.0


def test_pooled_runs_of_one_start_and_seed_are_the_paired_interval():
    rng = np.random.default_rng(7)
    base, tuned = rng.random(300) < 0.4, rng.random(300) < 0.6
    clusters = np.arange(300) // 4
    alone = pooled_interval([tuned * 1.0 - base], ["shapes"], clusters)
    assert alone == pytest.approx(paired_interval(base, tuned, clusters), abs=1e-12)
    assert not seeds_tell(["shapes", "shapes-2"])
    twice = pooled_interval([tuned * 1.0 - base] * 2, ["shapes", "shapes-2"], clusters)
    assert twice.estimate == pytest.approx(alone.estimate, abs=1e-12)
    narrower = (twice.high - twice.low) / (alone.high - alone.low)
    assert narrower > 0.9, "the same items are one cluster; of two it would be 0.71"


def test_pooled_intervals_hold_the_spread_of_seeds():
    """Against the parts computed one by one: items as one set, seeds within their own start."""
    rng = np.random.default_rng(8)
    luck = np.array([0.0, 0.08, -0.08, 0.3, 0.42, 0.30])  # two starts, three seeds
    values = (rng.random((6, 400)) < 0.3 + luck[:, None]) * 1.0
    starts, clusters = ["a"] * 3 + ["b"] * 3, np.arange(400) // 2
    found = pooled_interval(values, starts, clusters)
    items = jackknife(values.mean(0), np.ones(400), clusters)
    means = values.mean(1)
    seeds = (3 * means[:3].var(ddof=1) + 3 * means[3:].var(ddof=1)) / 36
    degrees = (items.variance + seeds) ** 2 / (items.variance**2 / 199 + seeds**2 / 4)
    half = quantile(degrees, 0.95) * math.sqrt(items.variance + seeds)
    assert found.estimate == pytest.approx(means.mean(), abs=1e-12)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)
    alone = pooled_interval(values, list(range(6)), clusters)
    assert found.high - found.low > 1.3 * (alone.high - alone.low)
    with pytest.raises(ValueError, match=r"differences \(6, 400\) must be \[runs, items\]"):
        pooled_interval(values, ["a"], clusters)


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
    with pytest.raises(ValueError, match="from 0 to the denominator"):
        mean_interval([1.0, 2.0], ["a", "b"])


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
