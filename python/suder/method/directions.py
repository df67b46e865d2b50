"""Which directions a run trains, and when."""

from __future__ import annotations

from suder.models.base import DIRECTIONS, Direction
from suder.settings.config import TrainConfig


def active(config: TrainConfig, round_index: int) -> tuple[Direction, ...]:
    """The directions trained in round `round_index` (counted from 1)."""
    if config.directions == "joint":
        return DIRECTIONS
    if config.directions == "alternating":
        return ("understanding",) if round_index % 2 else ("generation",)
    return (config.directions,)


def held(config: TrainConfig, round_index: int) -> Direction | None:
    """The direction that round `round_index` does not train and holds to the start."""
    others = [one for one in DIRECTIONS if one not in active(config, round_index)]
    return others[0] if others and config.anchor > 0 else None


def trained(config: TrainConfig) -> tuple[Direction, ...]:
    """Every direction that some round trains."""
    return tuple(dict.fromkeys(active(config, 1) + active(config, 2)))
