"""Losses over all magnitudes, against 150 digits: near p = 1, near equal policies, far apart.

The formulas are the papers' as they stand there; with so many digits, nothing cancels.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from mpmath import mpf
from torch import Tensor

from suder_ext import policy_loss, preference_loss
from suder_ext.preference_options import (
    F_DIVERGENCES,
    LOSS_TYPES,
    REFERENCE_FREE,
    TAKES_F_DIVERGENCE,
)
from tests.ops.pairs import taken, taken_logprobs
from tests.tolerances import TOLERANCES

CLOSE = TOLERANCES["loss/extremes", "cpu", torch.float32]
DIGITS = 150
BETA, MARGIN = 0.75, 0.25
CASES = [
    (loss_type, f_divergence, smoothing)
    for loss_type in LOSS_TYPES
    for f_divergence in F_DIVERGENCES
    if f_divergence == "reverse_kl" or loss_type in TAKES_F_DIVERGENCE
    for smoothing in ((0.1, 0.0, 0.5) if f_divergence == "reverse_kl" else (0.1,))
    if smoothing == 0.1 or "label_smoothing" in taken(loss_type, label_smoothing=smoothing)
    if not (loss_type == "exo_pair" and smoothing == 0)
    if not (loss_type == "robust" and smoothing == 0.5)
]


def sigmoid(x: mpf) -> mpf:
    return 1 / (1 + mpmath.exp(-x))


def ls(x: mpf) -> mpf:
    return -mpmath.log(1 + mpmath.exp(-x))


def score(x: mpf, f_divergence: str) -> mpf:
    if f_divergence == "forward_kl":
        return 1 - mpmath.exp(-x)
    if f_divergence == "js_divergence":
        return mpmath.log(2) + ls(x)
    if f_divergence == "alpha_divergence":
        return (mpmath.exp(-x / 2) - 1) / mpf(-0.5)
    return x


def pair_loss(
    loss_type: str, f_divergence: str, e: float, margin: float, values: list[mpf], lengths: Any
) -> mpf:
    """The loss of one pair: log p of chosen and rejected, those of the reference."""
    b, (policy, other, ref_policy, ref_other) = mpf(BETA), values
    c, r = policy - ref_policy, other - ref_other
    fc, fr = score(c, f_divergence), score(r, f_divergence)
    mean_c, mean_r = fc / lengths[0], fr / lengths[1]
    e = mpf(e)

    def logistic(x: mpf) -> mpf:
        return -(1 - e) * ls(x) - e * ls(-x)

    def log_odds(mean: mpf) -> mpf:
        return mean - mpmath.log(1 - mpmath.exp(mean))

    def discopop(x: mpf) -> mpf:
        m = sigmoid(x / mpf(0.05))
        return -ls(x) * (1 - m) + mpmath.exp(-x) * m

    def exo(x: mpf) -> mpf:
        q, other = sigmoid(x), sigmoid(-x)
        return q * mpmath.log(q / (1 - e)) + other * mpmath.log(other / e)

    x, x_of_means = b * (fc - fr) - margin, b * (mean_c - mean_r) - margin
    nll = -policy / lengths[0]
    losses: dict[str, Callable[[], mpf]] = {
        "sigmoid": lambda: logistic(x),
        "hinge": lambda: max(mpf(0), 1 - x),
        "ipo": lambda: (mean_c - mean_r - 1 / (2 * b)) ** 2,
        "exo_pair": lambda: exo(x),
        "nca_pair": lambda: -ls(b * c) - ls(-b * c) / 2 - ls(-b * r) / 2,
        "robust": lambda: (-(1 - e) * ls(x) + e * ls(-x)) / (1 - 2 * e),
        "bco_pair": lambda: -ls(b * c) - ls(-b * r),
        "sppo_hard": lambda: (c - 1 / (2 * b)) ** 2 + (r + 1 / (2 * b)) ** 2,
        "aot": lambda: logistic(b * (c - r)),
        "aot_unpaired": lambda: logistic(b * (c - r)),
        "apo_zero": lambda: 1 - sigmoid(b * c) + sigmoid(b * r),
        "apo_down": lambda: sigmoid(b * c) + 1 - sigmoid(b * (c - r)),
        "discopop": lambda: discopop(x),
        "sft": lambda: nll,
        "sigmoid_norm": lambda: logistic(x_of_means),
        "simpo": lambda: logistic(x_of_means),
        "cpo": lambda: logistic(x) + nll,
        "orpo": lambda: nll - b * ls(log_odds(mean_c) - log_odds(mean_r)),
    }
    return losses[loss_type]()


def magnitudes(count: int, least: float, most: float, seed: int) -> Tensor:
    """Log-uniform."""
    generator = torch.Generator().manual_seed(seed)
    exponent = least + (most - least) * torch.rand(count, generator=generator, dtype=torch.float64)
    return (10**exponent).float()


def signs(count: int, seed: int) -> Tensor:
    return 2.0 * torch.randint(0, 2, (count,), generator=torch.Generator().manual_seed(seed)) - 1


@functools.cache
def pairs_of(loss_type: str, f_divergence: str) -> list[Tensor]:
    """Log-probabilities of chosen and rejected and the reference's, 72 pairs, and their lengths."""
    many = 72
    most = 3.0 if f_divergence == "reverse_kl" else 1.9  # exponents stop at 88
    lengths = list(torch.randint(1, 30, (2, many), generator=torch.Generator().manual_seed(1)))
    if loss_type == "orpo":  # a probability has a logarithm below 0
        policy = [-magnitudes(many, -36.0, most, seed) for seed in (3, 4)]
        policy[1][::9] = policy[0][::9]
        return [*policy, torch.zeros(many), torch.zeros(many), *lengths]
    ratio = [signs(many, s) * magnitudes(many, -12.0, most, s + 2) for s in (5, 6)]
    ratio[1][::9] = -ratio[0][::9]
    ratio[1][4::9] = ratio[0][4::9] * (1 - 2**-20)
    ratio[1][5::9] = 2.0 * ratio[0][5::9]
    reference = [-magnitudes(many, -3.0, 2.0, s) for s in (9, 10)]
    for one in reference:
        one[slice(None) if loss_type in REFERENCE_FREE else slice(0, None, 2)] = 0
    policy = [a + b for a, b in zip(ratio, reference, strict=True)]
    return [*policy, *reference, *lengths]


@functools.cache
def expected(loss_type: str, f_divergence: str, smoothing: float) -> tuple[Tensor, ...]:
    """Loss of each pair, and its derivatives by chosen and rejected."""
    margin = MARGIN if "margin" in taken(loss_type, margin=MARGIN) and smoothing else 0.0
    rows = []
    with mpmath.workdps(DIGITS):
        for row in zip(*(x.tolist() for x in pairs_of(loss_type, f_divergence)), strict=True):
            policy, reference = [mpf(x) for x in row[:2]], [mpf(x) for x in row[2:4]]

            def loss(chosen: mpf, rejected: mpf, fixed: Any = (reference, row[4:])) -> mpf:
                values = [chosen, rejected, *fixed[0]]
                return pair_loss(loss_type, f_divergence, smoothing, margin, values, fixed[1])

            slopes = (derivative(loss, policy, place) for place in (0, 1))
            rows.append([float(x) for x in (loss(*policy), *slopes)])
    return tuple(torch.tensor(rows, dtype=torch.float64).unbind(1))


def derivative(function: Callable[..., mpf], at: list[mpf], place: int) -> mpf:
    """A central difference with a step so small that its own error is, too."""
    step = max(abs(at[place]), mpf(10) ** -45) * mpf(10) ** -35
    ends = [[x + (i == place) * h for i, x in enumerate(at)] for h in (step, -step)]
    return (function(*ends[0]) - function(*ends[1])) / (2 * step)


@pytest.mark.parametrize(("loss_type", "f_divergence", "smoothing"), CASES)
def test_preference_loss(loss_type: str, f_divergence: str, smoothing: float, backend: str) -> None:
    *logprobs, chosen_length, rejected_length = pairs_of(loss_type, f_divergence)
    options = taken(
        loss_type,
        f_divergence=f_divergence,
        label_smoothing=smoothing,
        margin=MARGIN if smoothing else 0.0,
        beta=BETA,
        chosen_length=chosen_length,
        rejected_length=rejected_length,
    )
    got = []
    for i in range(len(chosen_length)):  # alone: a batch has one mean length, and ranks
        leaves = [x[i : i + 1].clone().requires_grad_() for x in logprobs]
        own = {name: x[i : i + 1] if isinstance(x, Tensor) else x for name, x in options.items()}
        loss = preference_loss(*taken_logprobs(loss_type, leaves), **own).loss
        slopes = torch.autograd.grad(loss, leaves[:2], allow_unused=True, materialize_grads=True)
        got.append(torch.cat([loss.detach(), *slopes]))
    for ours, oracle in zip(
        torch.stack(got, 1), expected(loss_type, f_divergence, smoothing), strict=True
    ):
        compare(ours, oracle)


def compare(got: Tensor, oracle: Tensor) -> None:
    """As numbers of float32: what is too large for it is infinite."""
    torch.testing.assert_close(got.double(), oracle.float().double(), **CLOSE)


def policy_term(loss_type: str, a: float, held: mpf) -> Callable[[mpf], mpf]:
    """A token's first term with old log p 0; `held` is log p where the ratio is a constant."""
    clip, delta, x0 = mpf(CLIP), mpf(DELTA), held
    if loss_type == "cispo":
        return lambda x: -min(mpmath.exp(x0), mpf(CLIP)) * a * x
    if loss_type == "gpg":
        return lambda x: -a * x
    if loss_type == "vespo":
        k, lam = (2, 3) if a >= 0 else (3, 2)
        log_w = min(max(x0, mpmath.log(mpf(10) ** -8)), mpf(20))
        return lambda x: -mpmath.exp(lam + k * log_w - lam * mpmath.exp(log_w)) * a * x
    if loss_type == "sapo":
        t = mpf(1) if a > 0 else mpf(1.05)
        return lambda x: -4 / t * sigmoid(t * (mpmath.exp(x) - 1)) * a
    if loss_type == "gmpo":
        return lambda x: -mpmath.exp(min(x, clip) if a > 0 else max(x, -clip) if a < 0 else 0) * a

    def clipped(x: mpf) -> mpf:
        ratio = mpmath.exp(x)
        kept = min(ratio, delta) if loss_type == "delta" else ratio
        return -min(kept * a, min(max(ratio, 1 - clip), 1 + clip) * a)

    return clipped


def kl_of(estimator: str, corrected: bool, x: mpf, ref: mpf) -> tuple[mpf, mpf]:
    """A KL estimate and its derivative by log p, which also moves the ratio exp(x)."""
    d = ref - x
    value, slope, through_both = {
        "k1": lambda: (-d, mpf(1), 1 - d),
        "k2": lambda: (d**2 / 2, -d, d**2 / 2 - d),
        "k3": lambda: (mpmath.exp(d) - 1 - d, 1 - mpmath.exp(d), -d),
    }[estimator]()
    return (mpmath.exp(x) * value, mpmath.exp(x) * through_both) if corrected else (value, slope)


CLIP, DELTA = 0.25, 2.0
ESTIMATES = [(None, False), *itertools.product(("k1", "k2", "k3"), (False, True))]
POLICIES = [
    *(("grpo", "token", estimate) for estimate in ESTIMATES),
    ("grpo", "sequence", (None, False)),
    *(
        (name, "token", (None, False))
        for name in ("delta", "cispo", "vespo", "sapo", "gmpo", "gpg")
    ),
]


@pytest.mark.parametrize(("loss_type", "level", "estimate"), POLICIES)
@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
def test_policy_loss(
    advantage: float, loss_type: str, level: str, estimate: tuple[str | None, bool], backend: str
) -> None:
    """Tokens one by one: a surrogate or a KL estimate alone, as a sum hides the smaller."""
    many, (estimator, corrected) = 60, estimate
    log_ratio = signs(many, 1) * magnitudes(many, -12.0, 3.2, 2)
    distance = signs(many, 3) * magnitudes(many, -12.0, 3.2, 4)
    options: dict[str, Any] = {"loss_type": "grpo" if loss_type == "delta" else loss_type}
    options |= {"clip": CLIP, "level": level, "reduction": "sequence"}
    if loss_type == "delta":
        options["delta"] = DELTA
    if loss_type == "cispo":
        options["clip_high"] = CLIP
    if estimator:
        options |= {"kl_coef": 0.5, "kl_estimator": estimator, "kl_bias_correction": corrected}
    rows: list[list[float]] = []
    got: list[list[Tensor]] = []
    for ratio, apart in zip(log_ratio, distance, strict=True):
        new, zero = ratio[None].clone().requires_grad_(), torch.zeros(1)
        reference = (new + apart).detach() if estimator else None
        loss = policy_loss(
            new, zero, torch.tensor([advantage]), torch.tensor([0, 1]), reference, **options
        )
        got.append([loss.detach(), torch.autograd.grad(loss, new)[0][0]])
        with mpmath.workdps(DIGITS):
            at = [mpf(float(ratio))]
            term = policy_term(loss_type, advantage, at[0])
            value, slope = term(*at), derivative(term, at, 0)
            if estimator and reference is not None:
                kl = kl_of(estimator, corrected, at[0], mpf(float(reference)))
                value, slope = value + kl[0] / 2, slope + kl[1] / 2
            rows.append([float(value), float(slope)])
    for ours, right in zip(zip(*got, strict=True), zip(*rows, strict=True), strict=True):
        compare(torch.stack(ours), torch.tensor(right, dtype=torch.float64))


@pytest.mark.parametrize("mean", [-5e-8, -1e-30, 0.0])
def test_odds_of_a_certain_sequence_are_finite(mean: float, backend: str) -> None:
    for pair in ([mean, -1.0], [-1.0, mean], [mean, mean]):
        leaves = [torch.tensor([x], requires_grad=True) for x in pair]
        one = torch.ones(1, dtype=torch.int64)
        loss = preference_loss(
            *leaves, loss_type="orpo", chosen_length=one, rejected_length=one
        ).loss
        loss.backward()
        assert all(x.isfinite().all() for x in (loss, leaves[0].grad, leaves[1].grad))


def test_odds_of_two_nearly_certain_sequences(backend: str) -> None:
    means, one = torch.tensor([-5e-8, -2e-7]), torch.ones(1, dtype=torch.int64)
    loss = preference_loss(
        means[:1], means[1:], loss_type="orpo", beta=1.0, chosen_length=one, rejected_length=one
    ).loss
    torch.testing.assert_close(loss, torch.tensor([1.25]).log(), **CLOSE)
