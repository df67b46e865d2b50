"""Formulas of the preference losses in plain PyTorch, one small function each.

In the notation of their papers: `chosen` and `rejected` are log-ratios log(pi/pi_ref) of whole
sequences, a score is a log-ratio after the f-divergence, `x` is beta * (difference of scores) -
margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from suder_ext.preference_options import ALPHA, DISCOPOP_TAU, MAX_EXPONENT, MAX_MEAN_LOGPROB


class Pairs(NamedTuple):
    chosen: Tensor
    rejected: Tensor
    chosen_score: Tensor
    rejected_score: Tensor
    policy_delta: Tensor
    reference_delta: Tensor
    chosen_length: Tensor | None
    rejected_length: Tensor | None
    beta: float
    smoothing: float
    margin: float

    @property
    def x(self) -> Tensor:
        return self.beta * (self.chosen_score - self.rejected_score) - self.margin

    def averages(self, chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
        assert self.chosen_length is not None
        assert self.rejected_length is not None
        return chosen / self.chosen_length, rejected / self.rejected_length

    @property
    def nll(self) -> Tensor:
        """-log p of chosen; given lengths, its batch mean is the mean per token (as in TRL)."""
        if self.chosen_length is None:
            return -self.chosen
        return -self.chosen / self.chosen_length.mean()


def _logistic(x: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of sigmoid(x) with the label 1 - smoothing (cDPO)."""
    return -(1 - smoothing) * logsigmoid(x) - smoothing * logsigmoid(-x)


def _sigmoid(p: Pairs) -> Tensor:
    """DPO, arXiv 2305.18290 eq. 7; smoothed as in its authors' cDPO note, eq. 3."""
    return _logistic(p.x, p.smoothing)


def _hinge(p: Pairs) -> Tensor:
    """SLiC-HF, arXiv 2305.10425 eq. 1; RSO, arXiv 2309.06657 eq. 13."""
    return torch.relu(1 - p.x)


def _ipo(p: Pairs) -> Tensor:
    """IPO, arXiv 2310.12036 eq. 17, on means over tokens as its authors told TRL."""
    chosen, rejected = p.averages(p.chosen_score, p.rejected_score)
    return (chosen - rejected - 1 / (2 * p.beta)) ** 2


def _exo_pair(p: Pairs) -> Tensor:
    """EXO, arXiv 2402.00856 eq. 16: KL of the policy's pair from the smoothed label."""
    log_q, log_q_other = logsigmoid(p.x), logsigmoid(-p.x)
    return log_q.exp() * (log_q - math.log1p(-p.smoothing)) + log_q_other.exp() * (
        log_q_other - math.log(p.smoothing)
    )


def _nca_pair(p: Pairs) -> Tensor:
    """NCA, arXiv 2402.05369, pairwise form of algorithm 1."""
    chosen, rejected = p.beta * p.chosen, p.beta * p.rejected
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def _robust(p: Pairs) -> Tensor:
    """Robust DPO, arXiv 2403.00409 eq. 11."""
    e = p.smoothing
    return (-(1 - e) * logsigmoid(p.x) + e * logsigmoid(-p.x)) / (1 - 2 * e)


def _bco_pair(p: Pairs) -> Tensor:
    """BCO, arXiv 2404.04656, on pairs and without the moving reward shift, as TRL has it."""
    return -logsigmoid(p.beta * p.chosen) - logsigmoid(-p.beta * p.rejected)


def _sppo_hard(p: Pairs) -> Tensor:
    """SPPO, arXiv 2405.00675 eq. 4.7 with win probabilities 1 and 0."""
    return (p.chosen - 0.5 / p.beta) ** 2 + (p.rejected + 0.5 / p.beta) ** 2


def _ranked(value: Tensor, other: Tensor) -> Tensor:
    """value - (other's element of the same rank), in value's own order.

    TRL returns these sorted; only their mean is used there, which is the same, and here loss i is
    that of pair i.
    """
    rank = value.argsort(stable=True).argsort()
    return value - other.sort(stable=True).values[rank]


def _aot(p: Pairs) -> Tensor:
    """AOT, arXiv 2406.05882: stochastic dominance of the policy's margins over the reference's."""
    return _logistic(p.beta * _ranked(p.policy_delta, p.reference_delta), p.smoothing)


def _aot_unpaired(p: Pairs) -> Tensor:
    """AOT, unpaired: dominance of the chosen log-ratios over the rejected."""
    return _logistic(p.beta * _ranked(p.chosen, p.rejected), p.smoothing)


def _apo_zero(p: Pairs) -> Tensor:
    """APO-zero, arXiv 2408.06266 eq. 7: chosen up, rejected down."""
    return torch.sigmoid(-p.beta * p.chosen) + torch.sigmoid(p.beta * p.rejected)


def _apo_down(p: Pairs) -> Tensor:
    """APO-down, arXiv 2408.06266 eq. 8: both down, rejected more."""
    delta = p.beta * (p.chosen - p.rejected)
    return torch.sigmoid(p.beta * p.chosen) + torch.sigmoid(-delta)


def _discopop(p: Pairs) -> Tensor:
    """DiscoPOP, arXiv 2406.08414 eq. 5; exp(-x) * sigmoid(x/tau) as one exponent: no overflow."""
    scaled = p.x / DISCOPOP_TAU
    return -logsigmoid(p.x) * torch.sigmoid(-scaled) + torch.exp(logsigmoid(scaled) - p.x)


def _sft(p: Pairs) -> Tensor:
    """Negative log-likelihood of the chosen sequence; the reference plays no part."""
    return p.nll


def _sigmoid_norm(p: Pairs) -> Tensor:
    """DPO on means over tokens (Tulu 3, arXiv 2411.15124 eq. 6)."""
    chosen, rejected = p.averages(p.chosen_score, p.rejected_score)
    return _logistic(p.beta * (chosen - rejected) - p.margin, p.smoothing)


def _cpo(p: Pairs) -> Tensor:
    """CPO, arXiv 2401.08417 eq. 5: logistic without a reference, plus the chosen's likelihood."""
    return _logistic(p.x, p.smoothing) + p.nll


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, accurate at both ends (Maechler, 2012)."""
    near = x > -math.log(2)
    safe_near = torch.where(near, x, -torch.ones_like(x))
    safe_far = torch.where(near, -torch.ones_like(x), x)
    return torch.where(near, (-safe_near.expm1()).log(), (-safe_far.exp()).log1p())


def _orpo(p: Pairs) -> Tensor:
    """ORPO, arXiv 2403.07691 eqs. 6 and 7: likelihood plus beta times the log odds ratio's loss."""
    means = p.averages(p.chosen, p.rejected)
    chosen, rejected = (mean.clamp(max=MAX_MEAN_LOGPROB) for mean in means)
    log_odds_ratio = (chosen - _log1mexp(chosen)) - (rejected - _log1mexp(rejected))
    return p.nll - p.beta * logsigmoid(log_odds_ratio)


LOSSES: dict[str, Callable[[Pairs], Tensor]] = {
    "sigmoid": _sigmoid,
    "hinge": _hinge,
    "ipo": _ipo,
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "robust": _robust,
    "bco_pair": _bco_pair,
    "sppo_hard": _sppo_hard,
    "aot": _aot,
    "aot_unpaired": _aot_unpaired,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
    "sft": _sft,
    "sigmoid_norm": _sigmoid_norm,
    "simpo": _sigmoid_norm,  # arXiv 2405.14734 eq. 6 is DPO on means with a margin, no reference
    "cpo": _cpo,
    "orpo": _orpo,
}


def score(log_ratio: Tensor, f_divergence: str) -> Tensor:
    """f'(pi/pi_ref) up to a constant that cancels (f-DPO, arXiv 2309.16240, table 1)."""
    if f_divergence == "forward_kl":
        return 1 - (-log_ratio).clamp(max=MAX_EXPONENT).exp()
    if f_divergence == "js_divergence":
        return math.log(2) + logsigmoid(log_ratio)
    if f_divergence == "alpha_divergence":
        power = ((ALPHA - 1) * log_ratio).clamp(max=MAX_EXPONENT)
        return power.expm1() / (ALPHA - 1)
    return log_ratio
