"""Intervals of fractions and of paired differences, where items of one cluster are not independent.

The noise of a mean is read off whole clusters: the variance that leaving out one of them after the
other shows (the jackknife; Bell and McCaffrey, "Bias reduction in standard errors", 2002), with
Student's t of as many degrees as there are clusters but one, fewer where they are of unequal sizes
(Kish's effective number). Few clusters make such a variance too small near the ends, and 0 where
all items agree; so it is read as a number of independent items, s^2 / V, and at that number
fractions take Wilson's interval, which adds t^2 items of one half to those seen, and differences
likewise add t^2 pairs, of which a quarter got better and a quarter worse (as Agresti and Min add 2,
"Simple improved confidence intervals for comparing matched proportions", 2005).

What each kind covers in simulated evaluations: `python -m tests.trainer.evaluation.coverage`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate and its interval; `n` items in `clusters` clusters. NaN where there is none."""

    estimate: float
    low: float
    high: float
    n: int
    clusters: int

    def excludes_zero(self) -> bool:
        """Whether zero lies outside, so that the difference is more than its own noise."""
        return self.low > 0 or self.high < 0


class Spread(NamedTuple):
    """A mean with its variance and the degrees of freedom with which that is known."""

    mean: float
    variance: float
    degrees: float
    clusters: int


def ratio_interval(
    numerator: Any,
    denominator: Any,
    clusters: Sequence[Any] | np.ndarray,
    *,
    level: float = LEVEL,
) -> Interval:
    """Interval of the fraction sum(numerator) / sum(denominator), within [0, 1].

    Args:
        numerator: float `[n]`, from 0 to the denominator.
        denominator: float `[n]`; an item with 0 says nothing.
        clusters: `[n]`, anything hashable; items with equal entries vary together.

    One cluster alone says nothing of its own noise: its interval is nearly all of [0, 1].
    """
    top, bottom = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if not top.shape == bottom.shape == (len(clusters),):
        raise ValueError(
            f"numerator {top.shape}, denominator {bottom.shape} and clusters ({len(clusters)},) "
            "must be vectors of one length"
        )
    if np.any((top < 0) | (top > bottom)):
        raise ValueError("numerator: takes numbers from 0 to the denominator")
    total = bottom.sum()
    if total <= 0:
        return Interval(math.nan, math.nan, math.nan, len(top), 0)
    spread = jackknife(top, bottom, clusters)
    mean = spread.mean
    count = independent(mean * (1 - mean), spread, total)
    score = quantile(spread.degrees, level) ** 2 / count
    middle = (mean + score / 2) / (1 + score)
    half = math.sqrt(score * mean * (1 - mean) + score**2 / 4) / (1 + score)
    return Interval(
        mean, max(0.0, middle - half), min(1.0, middle + half), len(top), spread.clusters
    )


def mean_interval(
    values: Any, clusters: Sequence[Any] | np.ndarray, *, level: float = LEVEL
) -> Interval:
    """Interval of a mean of numbers within [0, 1], for example the accuracy of one model."""
    values = np.asarray(values, np.float64)
    return ratio_interval(values, np.ones_like(values), clusters, level=level)


def paired_interval(
    base: Any, tuned: Any, clusters: Sequence[Any] | np.ndarray, *, level: float = LEVEL
) -> Interval:
    """Interval of mean(tuned - base), within [-1, 1]; item i of both is judged on one input.

    Args:
        base, tuned: `[n]`, bool or within [0, 1].
        clusters: as of `ratio_interval`.
    """
    base, tuned = np.asarray(base, np.float64), np.asarray(tuned, np.float64)
    if base.shape != tuned.shape:
        raise ValueError(f"base {base.shape} and tuned {tuned.shape} are not judged on one set")
    difference = tuned - base
    if not len(difference):
        return Interval(math.nan, math.nan, math.nan, 0, 0)
    spread = jackknife(difference, np.ones_like(difference), clusters)
    return difference_interval(difference, spread, level)


def difference_interval(values: np.ndarray, spread: Spread, level: float = LEVEL) -> Interval:
    """The interval of paired differences `[n]` in [-1, 1] whose mean has this spread."""
    mean, square = spread.mean, float(np.square(values).mean())
    count = independent(square - mean**2, spread, values.size)
    added = quantile(spread.degrees, level) ** 2  # pairs, whose differences are +1, -1, 0, 0
    middle = mean * count / (count + added)
    variance = (square * count + added / 2) / (count + added) - middle**2
    half = math.sqrt(added * variance / (count + added))
    low, high = min(mean, max(-1.0, middle - half)), max(mean, min(1.0, middle + half))
    return Interval(mean, low, high, values.size, spread.clusters)


def reward_accuracy(
    reward: Any, correct: Any, clusters: Sequence[Any] | None = None, *, level: float = LEVEL
) -> Interval:
    """How often the reward ranks a right candidate above a wrong one of the same group.

    Args:
        reward: float `[G, N]`; one that is not finite leaves its candidate out.
        correct: bool `[G, N]`, by the external checker.
        clusters: `[G]`, the inputs of the groups; every group its own by default.

    The probability over all right/wrong pairs inside the groups, a tie counting one half (that is
    the area under the ROC curve inside a group). 0.5 is what a random reward gives. Groups that are
    all right or all wrong have no such pair. `n` of the result is the number of pairs.
    """
    reward, correct = np.asarray(reward, np.float64), np.asarray(correct, bool)
    if reward.shape != correct.shape or reward.ndim != 2:
        raise ValueError(f"reward {reward.shape} and correct {correct.shape} must be one [G, N]")
    known = np.isfinite(reward)
    pair = (correct & known)[:, :, None] & (~correct & known)[:, None, :]
    right, wrong = reward[:, :, None], reward[:, None, :]
    won = np.where(right > wrong, 1.0, np.where(right == wrong, 0.5, 0.0))
    wins, pairs = (won * pair).sum((1, 2)), pair.sum((1, 2))
    names = range(len(reward)) if clusters is None else clusters
    return ratio_interval(wins, pairs, list(names), level=level)._replace(n=int(pairs.sum()))


def jackknife(top: np.ndarray, bottom: np.ndarray, clusters: Sequence[Any] | np.ndarray) -> Spread:
    """sum(top) / sum(bottom) and how it varies when one cluster is left out after the other."""
    index = cluster_index(clusters)
    tops, bottoms = np.bincount(index, weights=top), np.bincount(index, weights=bottom)
    tops, bottoms = tops[bottoms > 0], bottoms[bottoms > 0]
    count, total = len(bottoms), bottoms.sum()
    mean = float(tops.sum() / total)
    if count < 2:
        return Spread(mean, math.inf, 1.0, count)
    without = (tops.sum() - tops) / (total - bottoms)
    variance = float((count - 1) / count * np.square(without - mean).sum())
    effective = float(total**2 / np.square(bottoms).sum())
    return Spread(mean, variance, max(1.0, effective - 1), count)


def independent(variance: float, spread: Spread, most: float) -> float:
    """How many independent items of this variance would have a mean of this spread.

    At least 1 and at most `most`. Where all items agree nothing tells whether those of a cluster
    had to: then as many as there are clusters.
    """
    if variance <= 1e-12:  # of floats, 0
        return float(spread.clusters)
    if spread.variance <= 0:
        return float(most)
    return min(float(most), max(1.0, variance / spread.variance))


def quantile(degrees: float, level: float) -> float:
    """Of Student's t: how many standard errors lie on either side of the mean."""
    return float(stdtrit(degrees, (1 + level) / 2))


def cluster_index(clusters: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Clusters as 0..C-1 in order of first appearance, so that the result depends on no hash."""
    seen: dict[Any, int] = {}
    return np.array([seen.setdefault(item, len(seen)) for item in clusters], dtype=np.int64)
