"""What each policy loss is and takes; read by the reference and the kernels' front end."""

from __future__ import annotations

import math
from typing import NamedTuple, get_args

from torch import Tensor

from suder_ext.types import KlEstimator, PolicyLossType, PolicyReduction, SamplingMode

LOSS_TYPES: tuple[str, ...] = get_args(PolicyLossType)
# The order is the code that kernels receive (csrc/include/suder/policy_loss.h).
SURROGATES = ("clip", "cispo", "sapo", "vespo", "gmpo", "gpg")
REDUCTIONS: tuple[str, ...] = get_args(PolicyReduction)
KL_ESTIMATORS: tuple[str, ...] = get_args(KlEstimator)
SAMPLING_MODES: tuple[str, ...] = get_args(SamplingMode)

# loss_type -> its surrogate, and the reduction of its paper.
MEANING: dict[str, tuple[str, PolicyReduction]] = {
    "grpo": ("clip", "sequence"),
    "bnpo": ("clip", "token"),
    "dapo": ("clip", "token"),
    "dr_grpo": ("clip", "constant"),
    "luspo": ("clip", "sum"),
    "cispo": ("cispo", "token"),
    "sapo": ("sapo", "sequence"),
    "vespo": ("vespo", "token"),
    "gmpo": ("gmpo", "sequence"),
    "gpg": ("gpg", "token"),
}
TAKES_LEVEL = frozenset(name for name, (s, _) in MEANING.items() if s in ("clip", "cispo", "sapo"))
TAKES_DELTA = frozenset(name for name, (surrogate, _) in MEANING.items() if surrogate == "clip")
# Their gradient to logprob goes past the ratio, which is a constant.
CONSTANT_RATIO = frozenset({"cispo", "vespo", "gpg"})


class PolicyOptions(NamedTuple):
    """What stands behind the tensors of torch.ops.suder.policy_loss, in its order."""

    surrogate: str
    clip_low: float
    clip_high: float
    delta: float
    kl_coef: float
    kl_estimator: str
    kl_bias_correction: bool
    reduction: str
    level: str
    max_length: int
    num_items: float
    by_sign: list[float]
    with_metrics: bool


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


def _unused(name: str, value: object, why: str, takes: object) -> None:
    raise ValueError(f"{name} is {value!r}; {why} does not use it ({takes})")


def policy_options(
    *,
    has_reference: bool,
    clip: float,
    clip_high: float | None,
    delta: float | None,
    kl_coef: float,
    kl_estimator: str,
    kl_bias_correction: bool,
    reduction: str | None,
    level: str,
    loss_type: str,
    max_length: int | None,
    num_items: float | Tensor | None,
    sapo_temperature: tuple[float, float],
    vespo_k: tuple[float, float],
    vespo_lambda: tuple[float, float],
    return_metrics: bool,
) -> PolicyOptions:
    """The operator's options. ValueError, naming the argument, if they make no loss or one is not
    used."""
    _one_of("loss_type", loss_type, LOSS_TYPES)
    _one_of("kl_estimator", kl_estimator, KL_ESTIMATORS)
    _one_of("level", level, ("token", "sequence"))
    surrogate, own_reduction = MEANING[loss_type]
    if reduction is None:
        reduction = own_reduction
    _one_of("reduction", reduction, REDUCTIONS)
    if not 0 <= clip < 1:
        raise ValueError(f"clip is {clip}; it must be in [0, 1)")
    if clip_high is not None and not clip_high >= 0:
        raise ValueError(f"clip_high is {clip_high}; it must be at least 0")
    if surrogate == "cispo" and clip_high is None:
        raise ValueError(
            "clip_high is None; loss_type='cispo' needs it: the largest ratio itself, and not how "
            "far it is above 1 (5.0 in ScaleRL)"
        )
    if delta is not None and loss_type not in TAKES_DELTA:
        _unused("delta", delta, f"loss_type={loss_type!r}", ", ".join(sorted(TAKES_DELTA)))
    if delta is not None and not delta > 0:
        raise ValueError(f"delta is {delta}; it must be above 0 (and, to do anything, above 1)")
    if level == "sequence" and loss_type not in TAKES_LEVEL:
        _unused("level", level, f"loss_type={loss_type!r}", ", ".join(sorted(TAKES_LEVEL)))
    if kl_coef != 0 and not has_reference:
        raise ValueError(f"ref_logprob is None; kl_coef={kl_coef} needs it, float [T]")
    if kl_coef == 0 and has_reference:
        raise ValueError(
            "ref_logprob is given; kl_coef=0 does not use it, so it must be None (give a kl_coef?)"
        )
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length is {max_length}; it must be at least 1")
    if max_length is not None and reduction != "constant":
        raise ValueError(
            f"max_length is {max_length}; reduction={reduction!r} does not use it, so it must be "
            "None (reduction that does: 'constant')"
        )
    if num_items is not None and not isinstance(num_items, Tensor) and not num_items > 0:
        raise ValueError(f"num_items is {num_items}; it must be above 0")
    for name, pair, least in (
        ("sapo_temperature", sapo_temperature, "above 0"),
        ("vespo_k", vespo_k, "at least 0"),
        ("vespo_lambda", vespo_lambda, "above 0"),
    ):
        if len(pair) != 2 or not all(x > 0 or (x == 0 and least == "at least 0") for x in pair):
            raise ValueError(
                f"{name} is {pair}; it must be two numbers {least}: for positive advantages and "
                "for the others"
            )
    return PolicyOptions(
        surrogate=surrogate,
        clip_low=clip,
        clip_high=clip if clip_high is None else clip_high,
        delta=math.inf if delta is None else delta,
        kl_coef=kl_coef,
        kl_estimator=kl_estimator,
        kl_bias_correction=kl_bias_correction and has_reference,
        reduction=reduction,
        level=level,
        max_length=max_length or 0,
        # A tensor divides the sum: to read it would synchronise.
        num_items=0.0 if num_items is None else 1.0 if isinstance(num_items, Tensor) else num_items,
        by_sign=[*sapo_temperature, *vespo_k, *vespo_lambda],
        with_metrics=return_metrics,
    )


def needs_logprob_slope(surrogate: str, kl_bias_correction: bool) -> bool:
    """Whether logprob's slope is something else than those of both differences together."""
    return surrogate in CONSTANT_RATIO or kl_bias_correction
