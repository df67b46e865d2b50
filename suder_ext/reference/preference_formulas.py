"""Formulas of the preference losses in plain PyTorch, one small function each.

In the notation of their papers: `chosen` and `rejected` are log-ratios log(pi/pi_ref) of whole
sequences, a score is a log-ratio after the f-divergence, `x` is beta * (difference of scores) -
margin. In float64, and written so that neither values nor derivatives lose their digits where terms
nearly cancel: near equal policies, and near a probability of 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from suder_ext.preference_options import ALPHA, MAX_EXPONENT, MAX_MEAN_LOGPROB, NO_ORDER


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
    discopop_tau: float
    likelihood_weight: float

    @property
    def x(self) -> Tensor:
        return self.beta * (self.chosen_score - self.rejected_score) - self.margin

    def averages(self, chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
        assert self.chosen_length is not None
        assert self.rejected_length is not None
        return chosen / self.chosen_length.clamp(min=1), rejected / self.rejected_length.clamp(
            min=1
        )

    @property
    def whole(self) -> Tensor:
        """Whether both sequences have tokens."""
        if self.chosen_length is None or self.rejected_length is None:
            return torch.ones_like(self.chosen, dtype=torch.bool)
        return (self.chosen_length > 0) & (self.rejected_length > 0)

    @property
    def nll(self) -> Tensor:
        """-log p of chosen; given lengths, its mean over whole pairs is per token (as in TRL)."""
        if self.chosen_length is None:
            return -self.chosen
        tokens = (self.chosen_length * self.whole).sum()
        return -self.chosen * self.whole.sum().clamp(min=1) / tokens.clamp(min=1)


def _logistic(x: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of sigmoid(x) with the label 1 - smoothing (cDPO).

    For small x as log 2 + log cosh(x / 2) - (1/2 - smoothing) x, whose derivative does not cancel.
    """
    near = x.abs() < 1
    small, other = x.where(near, 0.0), x.where(~near, 1.0)
    even = math.log(2) + (2 * (small / 4).sinh() ** 2).log1p()
    return torch.where(
        near,
        even - (0.5 - smoothing) * small,
        -(1 - smoothing) * logsigmoid(other) - smoothing * logsigmoid(-other),
    )


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
    """EXO, arXiv 2402.00856 eq. 16: KL of the policy's pair from the smoothed label.

    Near the label, `sum of q_i (r_i - 1 - log r_i)` with r_i = label_i / q_i: as the r_i - 1 cancel
    in the sum, no term is below 0.
    """
    label, rest = math.log1p(-p.smoothing), math.log(p.smoothing)
    log_q, log_q_other = logsigmoid(p.x), logsigmoid(-p.x)
    apart = log_q.exp() * (log_q - label) + log_q_other.exp() * (log_q_other - rest)
    above = p.x - (label - rest)
    near = above.abs() < 1
    above = above.where(near, 0.0)
    together = log_q.exp() * _rest_of_log1p(p.smoothing * (-above).expm1())
    together = together + log_q_other.exp() * _rest_of_log1p((1 - p.smoothing) * above.expm1())
    return torch.where(near, together, apart)


def _rest_of_log1p(t: Tensor) -> Tensor:
    """t - log1p(t)."""
    near = t.abs() < 1e-5
    small, other = t.where(near, 0.0), t.where(~near, 1.0)
    return torch.where(near, small**2 * (0.5 - small / 3), other - other.log1p())


def _nca_pair(p: Pairs) -> Tensor:
    """NCA, arXiv 2402.05369, pairwise form of algorithm 1."""
    chosen, rejected = p.beta * p.chosen, p.beta * p.rejected
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def _robust(p: Pairs) -> Tensor:
    """Robust DPO, arXiv 2403.00409 eq. 11."""
    # log sigmoid(x) - log sigmoid(-x) is x.
    return -logsigmoid(p.x) - p.smoothing / (1 - 2 * p.smoothing) * p.x


def _bco_pair(p: Pairs) -> Tensor:
    """BCO, arXiv 2404.04656, on pairs and without the moving reward shift, as TRL has it."""
    return -logsigmoid(p.beta * p.chosen) - logsigmoid(-p.beta * p.rejected)


def _sppo_hard(p: Pairs) -> Tensor:
    """SPPO, arXiv 2405.00675 eq. 4.7 with win probabilities 1 and 0."""
    return (p.chosen - 0.5 / p.beta) ** 2 + (p.rejected + 0.5 / p.beta) ** 2


def _ranked(value: Tensor, other: Tensor, whole: Tensor) -> Tensor:
    """value - (other's element of the same rank), in value's own order; pairs not whole come last.

    TRL returns these sorted; only their mean is used there, which is the same, and here loss i is
    that of pair i.
    """
    own = value.masked_fill(~whole, torch.nan).argsort(stable=True)
    partner = other.masked_fill(~whole, torch.nan).argsort(stable=True)
    return value - other[partner[own.argsort()]]


def _aot(p: Pairs) -> Tensor:
    """AOT, arXiv 2406.05882: stochastic dominance of the policy's margins over the reference's."""
    return _logistic(p.beta * _ranked(p.policy_delta, p.reference_delta, p.whole), p.smoothing)


def _aot_unpaired(p: Pairs) -> Tensor:
    """AOT, unpaired: dominance of the chosen log-ratios over the rejected."""
    return _logistic(p.beta * _ranked(p.chosen, p.rejected, p.whole), p.smoothing)


def _sigmoid_of(x: Tensor) -> Tensor:
    """sigmoid(x), with a derivative that is not taken from 1 - sigmoid(x)."""
    return logsigmoid(x).exp()


def _apo_zero(p: Pairs) -> Tensor:
    """APO-zero, arXiv 2408.06266 eq. 7: chosen up, rejected down."""
    return _sigmoid_of(-p.beta * p.chosen) + _sigmoid_of(p.beta * p.rejected)


def _apo_down(p: Pairs) -> Tensor:
    """APO-down, arXiv 2408.06266 eq. 8: both down, rejected more.

    Where c is near d, the derivative of the sum cancels:
    `sigmoid(c) + sigmoid(-d) = 1 + sinh((c - d) / 2) / (2 cosh(c / 2) cosh(d / 2))`.
    """
    c, rejected = p.beta * p.chosen, p.beta * p.rejected
    d = p.beta * (p.chosen - p.rejected)
    near = (rejected.abs() < 1) & (c.abs() < 300)  # as far as cosh goes
    halves = [x.where(near, 0.0) / 2 for x in (rejected, c, d)]
    product = 1 + halves[0].sinh() / (2 * halves[1].cosh() * halves[2].cosh())
    return torch.where(near, product, _sigmoid_of(c) + _sigmoid_of(-d))


def _discopop(p: Pairs) -> Tensor:
    """DiscoPOP, arXiv 2406.08414 eq. 5; exp(-x) * sigmoid(x/tau) as one exponent: no overflow."""
    scaled = p.x / p.discopop_tau
    return -logsigmoid(p.x) * _sigmoid_of(-scaled) + torch.exp(logsigmoid(scaled) - p.x)


def _sft(p: Pairs) -> Tensor:
    """Negative log-likelihood of the chosen sequence; the reference plays no part."""
    return p.nll


def _sigmoid_norm(p: Pairs) -> Tensor:
    """DPO on means over tokens (Tulu 3, arXiv 2411.15124 eq. 6)."""
    chosen, rejected = p.averages(p.chosen_score, p.rejected_score)
    return _logistic(p.beta * (chosen - rejected) - p.margin, p.smoothing)


def _cpo(p: Pairs) -> Tensor:
    """CPO, arXiv 2401.08417 eq. 5: logistic without a reference, plus the chosen's likelihood."""
    return _logistic(p.x, p.smoothing) + p.likelihood_weight * p.nll


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
    return p.likelihood_weight * p.nll - p.beta * logsigmoid(log_odds_ratio)


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


def _expm1(x: Tensor) -> Tensor:
    """exp(x) - 1; torch takes the derivative of its own from the result, where exp may be lost."""
    near = x.abs() < 1
    return torch.where(near, x.where(near, 0.0).expm1(), x.exp() - 1)


def score(log_ratio: Tensor, f_divergence: str, alpha: float = ALPHA) -> Tensor:
    """f'(pi/pi_ref) up to a constant that cancels (f-DPO, arXiv 2309.16240, table 1)."""
    if f_divergence == "forward_kl":
        return -_expm1((-log_ratio).clamp(max=MAX_EXPONENT))
    if f_divergence == "js_divergence":  # log(2 sigmoid): 0 where the log-ratio is
        near = log_ratio.abs() < 1
        small = log_ratio.where(near, 0.0)
        far = math.log(2) + logsigmoid(log_ratio)
        return torch.where(near, -((-small).expm1() / 2).log1p(), far)
    if f_divergence == "alpha_divergence" and abs(alpha - 1) >= NO_ORDER:
        power = ((alpha - 1) * log_ratio).clamp(max=MAX_EXPONENT)
        return _expm1(power) / (alpha - 1)
    return log_ratio
