"""How far a number may be from the start's by chance, over all looks of a run.

Looks are many and all at the same inputs, so their errors are alike: they are no new sample each,
and neither one look's bound nor a sequential test of independent ones holds. The bounds here hold
whatever looks have in common: the chances of all that a run has planned add up to the level
(Bonferroni). A late look gets more of a keeping level than an early one, for gains grow.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from suder.guard.look import Change


def score(one: Change) -> float:
    """A change in standard errors, as a normal's: few inputs estimate their error badly.

    Student's t with count - 1 degrees of freedom, by Wallace's approximation (Annals of
    Mathematical Statistics 30, 1959), which errs on the side of less. Without any spread only the
    sign is known.
    """
    if one.error <= 0:
        return math.copysign(math.inf, one.change) if one.change else 0.0
    t, freedom = one.change / one.error, max(1, one.count - 1)
    size = math.sqrt(freedom * math.log1p(t * t / freedom))
    return math.copysign(size * (8 * freedom + 1) / (8 * freedom + 3), t)


def planned(rounds: int, every: int) -> int:
    """Looks of a whole run, its last round's included and its start's not."""
    return -(-rounds // every)


def keep_bound(level: float, look: int, looks: int) -> float:
    """Standard errors that a gain must exceed at look `look` (from 1) of `looks`.

    Over all of them a run without any gain exceeds one with a chance of at most `level`; look l
    has 2 l / (looks (looks + 1)) of it.
    """
    share = 2 * min(look, looks) / (looks * (looks + 1))
    return _bound(level * share)


def stop_bound(level: float, tests: int, looks: int) -> float:
    """Standard errors beyond which a change is no chance, of `tests` at each of `looks`."""
    return _bound(level / (tests * looks))


def _bound(chance: float) -> float:
    return NormalDist().inv_cdf(1 - chance) if 0 < chance < 1 else math.inf * (0.5 - chance)
