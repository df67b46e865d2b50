"""How far a number may be from the start's by chance, over all looks of a run.

Looks are many and all at the same inputs, so their errors are alike: they are no new sample each,
and neither one look's bound nor a sequential test of independent ones holds. The bounds here hold
whatever looks have in common: the chances of all that a run has planned add up to the level
(Bonferroni). A late look gets more of a keeping level than an early one, for gains grow. A run
that is made longer (`suder train --resume RUN rounds=N`) has spent some of its level twice.

Changes are taken to be symmetric where there is no gain, as differences of two draws of one thing
are; of heavy tails (Student's t with 3 degrees of freedom) fewer are called gains than the level
says, of a long tail below (an exponential's) more: 18% of 12 independent looks.
"""

from __future__ import annotations

import math

from scipy.special import ndtri, stdtr

from suder.guard.look import Change


def score(one: Change) -> float:
    """A change in standard errors, as a normal's: few inputs estimate their error badly.

    By Student's t with count - 1 degrees of freedom. Without any spread only the sign is known.
    """
    if one.error <= 0:
        return math.copysign(math.inf, one.change) if one.change else 0.0
    below = stdtr(max(1, one.count - 1), -abs(one.change / one.error))
    return math.copysign(float(-ndtri(below)), one.change)


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
    return float(-ndtri(chance))
