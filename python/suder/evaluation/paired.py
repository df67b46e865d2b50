"""Differences of two models' fractions on the same items, whose denominators may differ, too.

Accuracies have one denominator for both; precision and F1 do not, since it counts what was said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from suder.evaluation.statistics import (
    LEVEL,
    Interval,
    cluster_index,
    difference_interval,
    jackknife,
    paired_interval,
    quantile,
)

RESAMPLES = 2000
CELLS = 1 << 22  # of a table of resamples, drawn at once


class Fraction(NamedTuple):
    """sum(top) / sum(bottom), float `[n]` each, an item's top from 0 to its bottom."""

    top: np.ndarray
    bottom: np.ndarray


def paired_ratio_interval(
    base: Fraction, tuned: Fraction, clusters: Sequence[Any] | np.ndarray, *, level: float = LEVEL
) -> Interval:
    """Interval of the difference of two fractions, within [-1, 1]; items i are of one input.

    Where both have one denominator this is `paired_interval` of the items that it counts. Else
    the same jackknife over whole clusters, of the difference of the two ratios.
    """
    same = base.bottom == tuned.bottom
    index = np.asarray(clusters)
    if same.all():
        counted = base.bottom > 0
        if not counted.any():
            return Interval(math.nan, math.nan, math.nan, 0, 0)
        weights = base.bottom[counted]
        before, after = (one.top[counted] / weights for one in (base, tuned))
        if (weights == weights[0]).all():
            return paired_interval(before, after, index[counted], level=level)
        spread = jackknife((after - before) * weights, weights, index[counted])
        return difference_interval(after - before, spread, level)
    if not (base.bottom.any() and tuned.bottom.any()):
        return Interval(math.nan, math.nan, math.nan, len(index), 0)
    one, other = (jackknife(part.top, part.bottom, index) for part in (base, tuned))
    difference = other.mean - one.mean
    place = cluster_index(index)
    sums = [np.bincount(place, weights=part) for part in (*base, *tuned)]
    count = len(sums[0])
    if count < 2:
        return Interval(difference, -1.0, 1.0, len(index), count)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = [(part.sum() - part) for part in sums]
        without = ratio[2] / ratio[3] - ratio[0] / ratio[1]
    without = without[np.isfinite(without)]
    variance = (count - 1) / count * float(np.square(without - difference).sum())
    half = quantile(min(one.degrees, other.degrees), level) * math.sqrt(variance)
    low, high = max(-1.0, difference - half), min(1.0, difference + half)
    return Interval(difference, low, high, len(index), count)


def paired_bootstrap(
    base: Fraction,
    tuned: Fraction,
    clusters: Sequence[Any] | np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of the same difference when whole clusters are drawn again (Efron).

    What most papers give. It is too short where there are few clusters, and nothing at all where
    no item differs; `paired_ratio_interval` is not, see `statistics`.
    """
    place = cluster_index(clusters)
    sums = np.stack([np.bincount(place, weights=part) for part in (*base, *tuned)], 1)
    count = len(sums)
    rng = np.random.default_rng([seed, 59])
    drawn = []
    at_once = max(1, CELLS // count)
    for first in range(0, resamples, at_once):
        some = min(at_once, resamples - first)
        often = rng.multinomial(count, np.full(count, 1 / count), size=some)
        drawn.append(often @ sums)
    top, bottom, after, of = np.concatenate(drawn).T
    with np.errstate(invalid="ignore", divide="ignore"):
        differences = after / of - top / bottom
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return math.nan, math.nan
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
