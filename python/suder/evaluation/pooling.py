"""The mean difference over runs from several seeds and start models, judged on the same items.

Two things vary: which items are asked, the same for all runs, and what a seed makes of a start. The
variance of the mean is taken as the sum of what whole clusters of items show, over all runs at
once, and of what the runs of one start show beside each other; both hold the noise of the single
item, so that the sum is a little too large and never too small (the same holds of the bootstrap of
both; Owen, "The pigeonhole bootstrap", 2007). Degrees of freedom are Satterthwaite's. The start
models themselves are not drawn from anything: the interval is of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from suder.evaluation.statistics import LEVEL, Interval, Spread, difference_interval, jackknife


def pooled_interval(
    differences: Any, starts: Sequence[Any], clusters: Sequence[Any], *, level: float = LEVEL
) -> Interval:
    """Interval of the mean of differences `[R, n]`: R runs, all judged on the same n items.

    Args:
        differences: tuned minus base, within [-1, 1].
        starts: `[R]`, what each run began with; runs of one start differ in their seeds.
        clusters: `[n]`, those of the items.

    Where no start has two runs nothing tells the seeds' spread, and the interval is of items alone;
    see `seeds_tell`.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 2 or values.shape != (len(starts), len(clusters)):
        raise ValueError(
            f"differences {values.shape} must be [runs, items], of {len(starts)} starts and "
            f"{len(clusters)} clusters"
        )
    of_items = jackknife(values.sum(0), np.full(len(clusters), float(len(values))), clusters)
    variance, degrees = _of_seeds(values.mean(1), starts)
    both = of_items.variance + variance
    if degrees and 0 < both < np.inf:
        degrees = both**2 / (of_items.variance**2 / of_items.degrees + variance**2 / degrees)
    else:
        degrees = of_items.degrees
    spread = Spread(of_items.mean, both, max(1.0, degrees), of_items.clusters)
    return difference_interval(values, spread, level)


def seeds_tell(starts: Sequence[Any]) -> bool:
    """Whether the spread of seeds can be told: some start has two runs or more."""
    return len(set(starts)) < len(starts)


def _of_seeds(means: np.ndarray, starts: Sequence[Any]) -> tuple[float, float]:
    """Variance of the mean of all runs from the spread inside each start, and its degrees."""
    squares, degrees = 0.0, 0.0
    for start in dict.fromkeys(starts):
        own = means[[one == start for one in starts]]
        if len(own) > 1:
            squares += len(own) * float(own.var(ddof=1))
            degrees += len(own) - 1
    return squares / len(means) ** 2, degrees
