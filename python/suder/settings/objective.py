"""Which preference loss an objective trains with, and which settings an objective takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from suder_ext.preference_options import REFERENCE_FREE, TAKES_MARGIN
from suder_ext.types import LossType

if TYPE_CHECKING:
    from suder.settings.learning import ObjectiveSection

PAIRED = ("simpo", "dpo")
LOSS_TYPE: dict[str, LossType] = {"simpo": "simpo", "dpo": "sigmoid"}
# Differences of means over tokens are small: their scale is another than that of sums.
BETA = {"simpo": 5.0, "sigmoid_norm": 5.0}
OTHER_BETA = 0.1
MARGIN = {"simpo": 0.5}


class Preference(NamedTuple):
    """A loss of pairs, every setting resolved."""

    loss_type: LossType
    beta: float
    margin: float
    with_reference: bool
    """Whether the loss looks at the start model's log-probabilities."""


def preference_of(objective: ObjectiveSection) -> Preference | None:
    """The loss of an objective that compares pairs; None for the others."""
    if objective.name not in PAIRED:
        return None
    loss_type = objective.loss_type or LOSS_TYPE[objective.name]
    margin = MARGIN.get(loss_type, 0.0) if objective.margin is None else objective.margin
    return Preference(
        loss_type,
        objective.beta or BETA.get(loss_type, OTHER_BETA),
        margin,
        objective.name == "dpo" and loss_type not in REFERENCE_FREE | {"sft"},
    )


class Looks(NamedTuple):
    """What a loss has to know of the start model."""

    at_tokens: bool
    """Its log-probability of each token that is trained."""
    at_all: bool
    """Its distribution at each position."""


def looks_at_start(objective: ObjectiveSection) -> Looks:
    """For a preference with a reference, and for the KL."""
    preference, exact = preference_of(objective), objective.kl_estimator == "exact"
    pulled = objective.kl > 0
    compared = preference is not None and preference.with_reference
    return Looks(at_tokens=compared or (pulled and not exact), at_all=pulled and exact)


def check_objective(objective: ObjectiveSection) -> None:
    """Raise ValueError, naming the setting, if one is given that the objective does not use."""
    preference = preference_of(objective)
    who = objective.name if objective.loss_type is None else f"loss_type {objective.loss_type}"
    if preference is None and objective.loss_type is not None:
        raise ValueError(f"objective.loss_type has no meaning for {objective.name}")
    if objective.loss_type == "exo_pair":
        raise ValueError("objective.loss_type: exo_pair needs smoothed labels; ours are exact")
    fields = type(objective).model_fields
    unused = {
        "beta": preference is None or preference.loss_type == "sft",
        "margin": preference is None or preference.loss_type not in TAKES_MARGIN,
        "clip": objective.name != "grpo",
        "normalize": objective.name != "grpo",
        "token_weight": objective.name != "grpo",
        "kl_estimator": objective.kl == 0,
    }
    for name, is_unused in unused.items():
        value, default = getattr(objective, name), fields[name].default
        if is_unused and value != default:
            raise ValueError(
                f"objective.{name} is {value}, which {who} does not use: leave it out "
                f"({'null' if default is None else default})"
            )
