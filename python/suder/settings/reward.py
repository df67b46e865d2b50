"""Which numbers a run's reward is made of, and which settings go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from suder.settings.candidates import Reward

Part = Literal["dual", "judge", "external", "entropy"]


def base_of(reward: Reward) -> Part:
    """What candidates are ranked by, before anything is added to it."""
    if reward.external is not None and reward.external_weight is None:
        return "external"
    return "judge" if reward.judge == "alone" else "dual"


def check_reward(reward: Reward) -> None:
    """Raise ValueError, naming the setting, if one is given that has no meaning beside the rest."""
    base = base_of(reward)
    if reward.model and reward.scorer != "live":
        raise ValueError(
            f"reward.model scores itself, frozen: leave reward.scorer {reward.scorer} out"
        )
    if base == "external" and reward.judge == "alone":
        raise ValueError(
            "reward.judge alone and reward.external alone cannot both be the reward: set "
            "reward.external_weight, to add the external one, or reward.judge to gate or sum"
        )
    if reward.external is None and reward.external_weight is not None:
        raise ValueError("reward.external_weight is of reward.external, which is not given")
    dual = base == "dual" and reward.scorer != "random"
    fields = type(reward).model_fields
    unused = {
        "judge_weight": (reward.judge != "sum", "reward.judge is sum"),
        "reduction": (not dual, "the dual reward is the reward or a part of it"),
        "include_eos": (not dual, "the dual reward is the reward or a part of it"),
        "scorer": (base != "dual" and reward.scorer == "random", "that is the reward"),
    }
    for name, (is_unused, only) in unused.items():
        value, default = getattr(reward, name), fields[name].default
        if is_unused and value != default:
            raise ValueError(
                f"reward.{name} is {value}, which has a meaning only where {only}: leave it out "
                f"({default})"
            )


def what_is_computed(reward: Reward, entropy_anchor: float) -> str:
    """The first setting, with its value, that asks for another number than the dual reward is, or
    "": of rewards that are taken as they are it would have no effect.
    """
    values = {
        "reward.scorer": (reward.scorer, "live"),
        "reward.judge": (reward.judge, "off"),
        "reward.external": (reward.external, None),
        "reward.reduction": (reward.reduction, "mean"),
        "reward.include_eos": (reward.include_eos, True),
        "objective.entropy_anchor": (entropy_anchor, 0.0),
    }
    return next(
        (f"{name} {value}" for name, (value, usual) in values.items() if value != usual), ""
    )
