"""How far statistics that no reward contains may move, in the start's own spread.

`guard.drift_limit` was set on the validation split of `shapes`, seed 1, 240 rounds, and not moved
after: joint GRPO, 14 points better in pictures, moved no statistic of pictures by more than 0.06 of
its spread and none of captions by more than 0.21, but the share of distinct pictures fell by 0.45.
"""

from __future__ import annotations

from collections.abc import Iterator

from suder.guard.look import Change, Look

# Where only one way is for the worse; the other statistics have no better end.
WORSE = {"denied": 1, "cut_off": 1, "distinct": -1}
# Training is to make good candidates likelier, so that fewer differ: only a collapse is a fault.
ALLOWED = {"distinct": 4.0}


def moved(look: Look, limit: float) -> Iterator[tuple[str, Change]]:
    """The statistics that are further from the start's than `limit` of its spread, in words."""
    for name, one in look.statistics.items():
        direction, statistic = name.split("/")
        way = WORSE.get(statistic)
        distance = abs(one.change) if way is None else way * one.change
        if distance > _allowed(statistic, one, limit):
            start = one.mean - one.change
            yield f"{direction}: {statistic} {one.mean:.3f}, start's {start:.3f}", one


def bands(look: Look, limit: float) -> dict[str, float]:
    """For the log of the start's look: how far each may move."""
    found: dict[str, float] = {}
    for name, one in look.statistics.items():
        direction, statistic = name.split("/")
        found[f"guard/{statistic}_band/{direction}"] = _allowed(statistic, one, limit)
    return found


def _allowed(statistic: str, one: Change, limit: float) -> float:
    return limit * ALLOWED.get(statistic, 1.0) * one.spread
