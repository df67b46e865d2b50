"""What each preference loss takes; read by the reference, the kernels' front end and the tests."""

from __future__ import annotations

import math
from typing import get_args

from suder_ext.types import FDivergence, LossType

# The order is the code that kernels receive (csrc/include/suder/preference_loss.h).
LOSS_TYPES: tuple[str, ...] = get_args(LossType)
F_DIVERGENCES: tuple[str, ...] = get_args(FDivergence)

SORTING = frozenset({"aot", "aot_unpaired"})  # a pair's loss depends on its rank in the batch
REFERENCE_FREE = frozenset({"simpo", "cpo", "orpo"})
NEEDS_LENGTH = frozenset({"ipo", "sigmoid_norm", "simpo", "orpo"})
# The others of these: for a likelihood per token, or to see which sequences are empty.
TAKES_LENGTH = NEEDS_LENGTH | SORTING | {"sft", "cpo"}
# The normaliser of an f-divergence cancels only in a difference of scores (TRL allows the same).
TAKES_F_DIVERGENCE = frozenset(
    {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"}
)
TAKES_MARGIN = frozenset(
    {"sigmoid", "sigmoid_norm", "hinge", "exo_pair", "robust", "discopop", "simpo", "cpo"}
)
TAKES_LABEL_SMOOTHING = frozenset(
    {"sigmoid", "sigmoid_norm", "exo_pair", "robust", "aot", "aot_unpaired", "simpo", "cpo"}
)

TAKES_LIKELIHOOD_WEIGHT = frozenset({"cpo", "orpo"})

ALPHA = 0.5  # of alpha_divergence: TRL's default f_alpha_divergence_coef
DISCOPOP_TAU = 0.05  # the DiscoPOP paper's value
NO_ORDER = 1e-6  # an alpha so near 1 is 1, where the divergence is the reverse KL
MAX_EXPONENT = 88.0  # an f-divergence's exp() stays finite in float32
MAX_MEAN_LOGPROB = -(2.0**-126)  # so do orpo's odds, p / (1 - p), where p is 1


def check_preference_options(
    loss_type: str,
    *,
    beta: float,
    label_smoothing: float,
    margin: float,
    f_divergence: str,
    f_alpha: float,
    discopop_tau: float,
    likelihood_weight: float,
    lengths: dict[str, bool],
    reference: dict[str, bool],
) -> None:
    """Raise ValueError, naming the argument, if the options make no loss or one is not used.

    `lengths` and `reference`: the tensors' names, and whether they are given.
    """
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"loss_type is {loss_type!r}; it must be one of {', '.join(LOSS_TYPES)}")
    if f_divergence not in F_DIVERGENCES:
        raise ValueError(
            f"f_divergence is {f_divergence!r}; it must be one of {', '.join(F_DIVERGENCES)}"
        )
    if not beta > 0:
        raise ValueError(f"beta is {beta}; it must be above 0")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; it must be in [0, 1)")
    if loss_type == "exo_pair" and label_smoothing == 0:
        raise ValueError(
            "label_smoothing is 0; loss_type='exo_pair' takes its logarithm, so it must be above 0 "
            "(the EXO paper uses 1e-3)"
        )
    if loss_type == "robust" and not label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing is {label_smoothing}; loss_type='robust' divides by "
            "1 - 2*label_smoothing, so it must be below 0.5"
        )
    for name, value, default, takes in (
        ("label_smoothing", label_smoothing, 0, TAKES_LABEL_SMOOTHING),
        ("margin", margin, 0, TAKES_MARGIN),
        ("f_divergence", f_divergence, "reverse_kl", TAKES_F_DIVERGENCE),
        ("discopop_tau", discopop_tau, DISCOPOP_TAU, frozenset({"discopop"})),
        ("likelihood_weight", likelihood_weight, 1, TAKES_LIKELIHOOD_WEIGHT),
    ):
        if value != default and loss_type not in takes:
            raise ValueError(
                f"{name} is {value!r}; loss_type={loss_type!r} does not use it, so it must be "
                f"{default!r} (losses that do: {', '.join(sorted(takes))})"
            )
    if f_alpha != ALPHA and f_divergence != "alpha_divergence":
        raise ValueError(
            f"f_alpha is {f_alpha}; f_divergence={f_divergence!r} does not use it, so it must be "
            f"{ALPHA} (divergence that does: 'alpha_divergence')"
        )
    if not -math.inf < f_alpha < math.inf:  # torch.compile traces no isfinite of a number
        raise ValueError(f"f_alpha is {f_alpha}; it must be a number")
    if not discopop_tau > 0:
        raise ValueError(f"discopop_tau is {discopop_tau}; it must be above 0")
    if not likelihood_weight >= 0:
        raise ValueError(f"likelihood_weight is {likelihood_weight}; it must be at least 0")
    for given, takes in (
        (lengths, TAKES_LENGTH),
        (reference, frozenset(LOSS_TYPES) - REFERENCE_FREE),
    ):
        if any(given.values()) and loss_type not in takes:
            raise ValueError(
                f"{next(name for name in given if given[name])} is given; loss_type={loss_type!r} "
                f"does not use it, so it must be None (losses that do: {', '.join(sorted(takes))})"
            )
    if loss_type in NEEDS_LENGTH and not any(lengths.values()):
        raise ValueError(
            f"{' and '.join(lengths)} are None; loss_type={loss_type!r} averages over tokens and "
            "needs both, int64 [B]"
        )
    for given in (lengths, reference):
        if any(given.values()) and not all(given.values()):
            raise ValueError(f"{' and '.join(given)} must be given together or not at all")
