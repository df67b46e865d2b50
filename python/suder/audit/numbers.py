"""Numbers about rewards inside groups: what is preferred, what goes with what, how far apart."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Preference(NamedTuple):
    """Of matching partners over shuffled ones, for one input each time.

    Attributes:
        ahead: share of comparisons that the matching partner wins, a tie counting one half.
        margin: mean reward of matching less that of shuffled partners; `error`: its standard error
            over the inputs.
        matching, shuffled: those means.
        inputs, compared: how many of each.
    """

    ahead: float
    margin: float
    error: float
    matching: float
    shuffled: float
    inputs: int
    compared: int


class Correlation(NamedTuple):
    """Mean rank correlation inside groups, with its standard error over the groups that have one;
    NaN where none has."""

    mean: float
    error: float
    groups: int


class Spread(NamedTuple):
    """Of rewards inside groups.

    Attributes:
        deviation: median over the groups of the standard deviation inside.
        gap: median of the best less the worst.
        alike: share of groups whose candidates all have one reward, so that nothing is learnt.
        lost: share of candidates without a reward.
    """

    deviation: float
    gap: float
    alike: float
    lost: float


def preference(matching: np.ndarray, shuffled: np.ndarray) -> Preference:
    """`matching` float `[n]` against `shuffled` float `[K, n]`; NaN: not to be compared."""
    compared = np.isfinite(shuffled) & np.isfinite(matching)
    count = compared.sum(0)
    known = count > 0
    if not known.any():
        nothing = math.nan
        return Preference(nothing, nothing, nothing, nothing, nothing, 0, 0)
    won = np.where(matching > shuffled, 1.0, np.where(matching == shuffled, 0.5, 0.0))
    others = np.where(compared, shuffled, 0.0).sum(0)[known] / count[known]
    margin = matching[known] - others
    error = margin.std(ddof=1) / math.sqrt(len(margin)) if len(margin) > 1 else math.inf
    return Preference(
        ahead=float(won[compared].mean()),
        margin=float(margin.mean()),
        error=float(error),
        matching=float(matching[known].mean()),
        shuffled=float(others.mean()),
        inputs=int(known.sum()),
        compared=int(compared.sum()),
    )


def inside(one: np.ndarray, other: np.ndarray) -> Correlation:
    """Spearman's rank correlation of two numbers of the same candidates, both `[G, N]`.

    Inside each group, since only there rewards are compared; groups in which either number is the
    same for all have none.
    """
    found = []
    for left, right in zip(one, other, strict=True):
        known = np.isfinite(left) & np.isfinite(right)
        a, b = ranks(left[known]), ranks(right[known])
        if len(a) > 1 and np.ptp(a) and np.ptp(b):
            found.append(float(np.corrcoef(a, b)[0, 1]))
    if not found:
        return Correlation(math.nan, math.nan, 0)
    error = np.std(found, ddof=1) / math.sqrt(len(found)) if len(found) > 1 else math.inf
    return Correlation(float(np.mean(found)), float(error), len(found))


def ranks(values: np.ndarray) -> np.ndarray:
    """Places in ascending order from 0, equal values sharing the mean of theirs."""
    order = np.sort(values)
    return (np.searchsorted(order, values) + np.searchsorted(order, values, "right") - 1) / 2


def spread(reward: np.ndarray) -> Spread:
    """Of rewards `[G, N]`, NaN where there is none."""
    known = np.isfinite(reward)
    groups = [row[has] for row, has in zip(reward, known, strict=True)]
    whole = [row for row in groups if len(row) > 1]
    gaps = [float(np.ptp(row)) for row in whole]
    return Spread(
        deviation=float(np.median([row.std(ddof=1) for row in whole])) if whole else math.nan,
        gap=float(np.median(gaps)) if whole else math.nan,
        alike=1 - sum(gap > 0 for gap in gaps) / max(1, len(groups)),
        lost=float(1 - known.mean()),
    )
