"""What each preference loss takes; read by the reference, the kernels' front end and the tests."""

from __future__ import annotations

from typing import get_args

from suder_ext.types import FDivergence, LossType

# The order is the code that kernels receive (csrc/include/suder/preference_loss.h).
LOSS_TYPES: tuple[str, ...] = get_args(LossType)
F_DIVERGENCES: tuple[str, ...] = get_args(FDivergence)

NEEDS_LENGTH = frozenset({"ipo", "sigmoid_norm", "simpo", "orpo"})
# The normaliser of an f-divergence cancels only in a difference of scores (TRL allows the same).
TAKES_F_DIVERGENCE = frozenset(
    {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
)
TAKES_MARGIN = frozenset(
    {"sigmoid", "sigmoid_norm", "hinge", "exo_pair", "robust", "discopop", "simpo", "cpo"}
)
TAKES_LABEL_SMOOTHING = frozenset(
    {"sigmoid", "sigmoid_norm", "exo_pair", "robust", "aot", "aot_unpaired", "simpo", "cpo"}
)
SORTING = frozenset({"aot", "aot_unpaired"})  # a pair's loss depends on its rank in the batch
REFERENCE_FREE = frozenset({"simpo", "cpo", "orpo"})

ALPHA = 0.5  # of alpha_divergence: TRL's default f_alpha_divergence_coef
DISCOPOP_TAU = 0.05  # the DiscoPOP paper's value
MAX_EXPONENT = 80.0  # an f-divergence's exp() stays finite in float32
MAX_MEAN_LOGPROB = -1e-7  # orpo's log(1 - p) stays finite where p is 1


def check_preference_options(
    loss_type: str,
    *,
    beta: float,
    label_smoothing: float,
    margin: float,
    f_divergence: str,
    has_lengths: bool,
    has_reference: tuple[bool, bool],
) -> None:
    """Raise ValueError, naming the argument, if the options do not make a loss."""
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
    if margin != 0 and loss_type not in TAKES_MARGIN:
        raise ValueError(
            f"margin is {margin}; loss_type={loss_type!r} has none, so it must be 0 (losses with "
            f"a margin: {', '.join(sorted(TAKES_MARGIN))})"
        )
    if f_divergence != "reverse_kl" and loss_type not in TAKES_F_DIVERGENCE:
        raise ValueError(
            f"f_divergence is {f_divergence!r}; loss_type={loss_type!r} takes 'reverse_kl' only "
            f"(losses with a choice: {', '.join(sorted(TAKES_F_DIVERGENCE))})"
        )
    if loss_type in NEEDS_LENGTH and not has_lengths:
        raise ValueError(
            f"chosen_length and rejected_length are None; loss_type={loss_type!r} averages over "
            "tokens and needs both, int64 [B]"
        )
    if has_reference[0] != has_reference[1]:
        raise ValueError(
            "ref_chosen_logprob and ref_rejected_logprob must be given together or not at all"
        )
