"""Intervals for paired comparisons: the bootstrap over clusters, seeded, in numpy.

Two models are judged on the same inputs, so what varies is the difference item by item; and items
of one prompt are not independent, so whole prompts are drawn, not items (the cluster bootstrap,
Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). The interval is
the percentile interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 4000
_CHUNK = 500  # resamples held at once: 500 x 1000 clusters of int64 is 4 MB


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


def ratio_interval(
    numerator: Any,
    denominator: Any,
    clusters: Sequence[Any] | np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of sum(numerator) / sum(denominator), clusters drawn whole.

    Args:
        numerator: float `[n]`.
        denominator: float `[n]`, not negative.
        clusters: `[n]`, anything hashable; items with equal entries are drawn together.

    A resample whose denominator is zero says nothing and is left out.
    """
    top, bottom = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if not top.shape == bottom.shape == (len(clusters),):
        raise ValueError(
            f"numerator {top.shape}, denominator {bottom.shape} and clusters ({len(clusters)},) "
            "must be vectors of one length"
        )
    total = bottom.sum()
    if len(top) == 0 or total <= 0:
        return Interval(float("nan"), float("nan"), float("nan"), len(top), 0)
    index = _cluster_index(clusters)
    count = int(index.max()) + 1
    tops = np.bincount(index, weights=top, minlength=count)
    bottoms = np.bincount(index, weights=bottom, minlength=count)
    rng = np.random.default_rng(seed)
    draws = []
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        weight = rng.multinomial(count, np.full(count, 1 / count), size=size)
        below = weight @ bottoms
        draws.append((weight @ tops)[below > 0] / below[below > 0])
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(draws), [tail, 1 - tail])
    return Interval(float(top.sum() / total), float(low), float(high), len(top), count)


def mean_interval(values: Any, clusters: Sequence[Any] | np.ndarray, **options: Any) -> Interval:
    """Bootstrap interval of a mean, for example the accuracy of one model."""
    values = np.asarray(values, np.float64)
    return ratio_interval(values, np.ones_like(values), clusters, **options)


def paired_interval(
    base: Any, tuned: Any, clusters: Sequence[Any] | np.ndarray, **options: Any
) -> Interval:
    """Bootstrap interval of mean(tuned - base), item i of both being judged on the same input."""
    base, tuned = np.asarray(base, np.float64), np.asarray(tuned, np.float64)
    if base.shape != tuned.shape:
        raise ValueError(f"base {base.shape} and tuned {tuned.shape} are not judged on one set")
    return mean_interval(tuned - base, clusters, **options)


def reward_accuracy(
    reward: Any, correct: Any, clusters: Sequence[Any] | None = None, **options: Any
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
    return ratio_interval(wins, pairs, list(names), **options)._replace(n=int(pairs.sum()))


def _cluster_index(clusters: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Clusters as 0..C-1 in order of first appearance, so that the result depends on no hash."""
    seen: dict[Any, int] = {}
    return np.array([seen.setdefault(item, len(seen)) for item in clusters], dtype=np.int64)
