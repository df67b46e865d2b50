"""The numbers and weights of preference losses, and the unpaired losses, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import suder_ext
from suder_ext import kto_loss, linear_preference_loss, preference_loss, reference, wpo_weight
from tests.ops.test_preference_loss import CLOSE, check, lengths, logprobs, results_and_gradients


@pytest.mark.parametrize(
    ("loss_type", "options"),
    [
        *(
            ("sigmoid", {"f_divergence": "alpha_divergence", "f_alpha": a})
            for a in (-1.0, 0.9, 3.0)
        ),
        ("ipo", {"f_divergence": "alpha_divergence", "f_alpha": 1.0}),
        *(("discopop", {"discopop_tau": tau}) for tau in (0.01, 2.0)),
        *((name, {"likelihood_weight": w}) for name in ("cpo", "orpo") for w in (0.0, 0.3)),
    ],
)
def test_numbers_of_a_loss(loss_type: str, options: dict[str, Any], backend: str) -> None:
    check(logprobs(37), loss_type=loss_type, beta=0.3, **lengths(37), **options)


def test_alpha_of_1_is_the_reverse_kl(backend: str) -> None:
    inputs = logprobs(9)
    limit = preference_loss(*inputs, f_divergence="alpha_divergence", f_alpha=1.0).loss
    assert torch.equal(limit, preference_loss(*inputs).loss)


def test_without_their_likelihood_cpo_and_orpo_are_what_is_left(backend: str) -> None:
    chosen, rejected = (x.double() for x in logprobs(9)[:2])
    got = preference_loss(
        chosen.float(), rejected.float(), loss_type="cpo", beta=0.3, likelihood_weight=0.0
    ).loss
    expected = torch.nn.functional.softplus(-0.3 * (chosen - rejected))
    torch.testing.assert_close(got.double(), expected, **CLOSE)
    n = {name: x.clamp(min=1) for name, x in lengths(9).items()}
    got = preference_loss(
        chosen.float(), rejected.float(), loss_type="orpo", beta=0.3, likelihood_weight=0.0, **n
    ).loss
    means = chosen / n["chosen_length"], rejected / n["rejected_length"]
    odds = [mean - (-mean.exp()).log1p() for mean in means]
    expected = 0.3 * torch.nn.functional.softplus(odds[1] - odds[0])
    torch.testing.assert_close(got.double(), expected, **CLOSE)


def test_pair_weight_multiplies_the_loss(backend: str) -> None:
    inputs, weight = logprobs(9), torch.rand(9, generator=torch.Generator().manual_seed(3))
    ones = [torch.ones(9)] * 3
    got = results_and_gradients(preference_loss, [*inputs], ones, pair_weight=weight)
    plain = results_and_gradients(preference_loss, inputs, [weight, *ones[1:]])
    torch.testing.assert_close(got[0][0], plain[0][0] * weight)
    for ours, other in zip(got[1], plain[1], strict=True):
        torch.testing.assert_close(ours, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"f_alpha": 0.2}, r"f_alpha is 0.2; f_divergence='reverse_kl' does not use it"),
        ({"discopop_tau": 0.2}, r"discopop_tau is 0.2; loss_type='sigmoid' does not use it"),
        ({"discopop_tau": 0.0, "loss_type": "discopop"}, r"discopop_tau is 0.0"),
        ({"likelihood_weight": 0.0}, r"likelihood_weight is 0.0; loss_type='sigmoid' does not"),
        ({"likelihood_weight": -1.0, "loss_type": "cpo"}, r"likelihood_weight is -1.0"),
        ({"pair_weight": torch.ones(3)}, r"pair_weight takes shape \[4\]"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str, backend: str) -> None:
    with pytest.raises(ValueError, match=message):
        preference_loss(*logprobs(4)[:2], **options)


# ---- from hidden states


def head(seed: int = 0) -> dict[str, Tensor]:
    """Three pairs; the last one's rejected sequence has no scored token."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 11, (15,), generator=generator)
    target[[1, 12, 13, 14]] = -100
    return {
        "hidden": torch.randn(15, 5, generator=generator),
        "weight": torch.randn(11, 5, generator=generator),
        "target": target,
        "cu_seqlens": torch.tensor([0, 4, 6, 7, 9, 12, 15]),
    }


def logprobs_of(t: dict[str, Tensor], temperature: float = 1.0) -> Tensor:
    return (t["hidden"].double() @ t["weight"].double().t() / temperature).log_softmax(1)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_ld_alpha_weighs_what_the_partner_has_no_token_beside(reduction: str, backend: str) -> None:
    t, alpha = head(), 0.25
    own = logprobs_of(t).gather(1, t["target"].clamp(min=0)[:, None])[:, 0]
    # Scored tokens of the pairs: 3 and 2 (the first ends with one more), 1 and 2.
    chosen = torch.stack([own[0] + own[2] + alpha * own[3], own[6]])
    rejected = torch.stack([own[4] + own[5], own[7] + alpha * own[8]])
    expected = torch.nn.functional.softplus(-0.1 * (chosen - rejected))
    loss = linear_preference_loss(**t, ld_alpha=alpha, reduction=reduction).loss
    if reduction == "mean":
        torch.testing.assert_close(loss.double(), expected.mean(), **CLOSE)
    else:
        torch.testing.assert_close(loss[:2].double(), expected, **CLOSE)
        assert loss[2].isnan()


def test_wpo_weight(backend: str) -> None:
    t = head()
    logs = logprobs_of(t, 0.7)
    own = logs.gather(1, t["target"].clamp(min=0)[:, None])[:, 0]
    aligned = own - (2 * logs).exp().sum(1).log()
    first = aligned[[0, 2, 3]].mean() + aligned[[4, 5]].mean()
    second = aligned[6] + aligned[[7, 8]].mean()
    got = wpo_weight(**t, temperature=0.7)
    torch.testing.assert_close(got[:2].double(), torch.stack([first, second]).exp(), **CLOSE)
    assert got[2].isnan()


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_weighted_pairs_and_one_left_out(reduction: str, backend: str) -> None:
    """The weight of a pair without tokens is NaN, and reaches no other's gradient."""
    t = head()
    t["hidden"].requires_grad_()
    weight = wpo_weight(**t)
    result = linear_preference_loss(**t, pair_weight=weight, reduction=reduction).loss
    plain = linear_preference_loss(**t).loss[:2] * weight[:2]
    total = result if reduction == "mean" else result[:2].mean()
    torch.testing.assert_close(total, plain.mean(), **CLOSE)
    got, expected = (torch.autograd.grad(x, t["hidden"])[0] for x in (total, plain.mean()))
    torch.testing.assert_close(got, expected, **CLOSE)
    assert (got[9:] == 0).all()


# ---- unpaired


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("kl", [None, 1.5, -3.0, torch.tensor(1.5)])
def test_kto(loss_type: str, kl: Any) -> None:
    if loss_type != "kto" and kl is not None:
        with pytest.raises(ValueError, match=r"kl is given; loss_type='apo_zero_unpaired'"):
            kto_loss(torch.zeros(2), torch.ones(2).bool(), loss_type=loss_type, kl=kl)
        return
    policy, _, ref, _ = (x.requires_grad_() for x in logprobs(9))
    good = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0, 1])
    point = max(float(kl or 0.0), 0.0)
    ratio = policy.double() - ref.double()
    expected = torch.where(
        good.bool(),
        2.0 * (1 - torch.sigmoid(0.3 * (ratio - point))),
        0.5 * (1 - torch.sigmoid(0.3 * (point - ratio))),
    )
    options = {"beta": 0.3, "kl": kl, "loss_type": loss_type}
    result = kto_loss(policy, good, ref, **options, desirable_weight=2.0, undesirable_weight=0.5)
    torch.testing.assert_close(result.loss.double(), expected, **CLOSE)
    torch.testing.assert_close(result.reward.double(), 0.3 * ratio, **CLOSE)
    upstream = torch.arange(9.0)
    got = torch.autograd.grad(result.loss, (policy, ref), upstream)
    right = torch.autograd.grad(expected, (policy, ref), upstream.double())
    for ours, oracle in zip(got, right, strict=True):
        torch.testing.assert_close(ours, oracle, **CLOSE)


def test_kto_far_from_the_reference() -> None:
    """At 1 - sigmoid the derivative is still exp(-x), and never NaN."""
    x = torch.tensor([40.0, 90.0, 3000.0, -3000.0]).requires_grad_()
    (grad,) = torch.autograd.grad(kto_loss(x, torch.ones(4).bool(), beta=1.0).loss.sum(), x)
    expected = torch.tensor([-math.exp(-40), -math.exp(-90), 0.0, 0.0])
    torch.testing.assert_close(grad, expected, rtol=CLOSE["rtol"], atol=0.0)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"beta": 0.0}, ValueError, "beta is 0.0"),
        ({"loss_type": "bco"}, ValueError, "loss_type is 'bco'"),
        ({"desirable": torch.ones(3)}, TypeError, "desirable takes dtype"),
        ({"desirable": torch.ones(2).bool()}, ValueError, r"desirable takes shape \[3\]"),
        ({"undesirable_weight": -1.0}, ValueError, "undesirable_weight is -1.0"),
        ({"kl": torch.ones(3)}, ValueError, "kl takes 0 dimension"),
    ],
)
def test_kto_errors(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"logprob": torch.zeros(3), "desirable": torch.ones(3).bool()}
    for function in (suder_ext.kto_loss, reference.kto_loss):
        if function is suder_ext.kto_loss or "takes" not in message:
            with pytest.raises(error, match=message):
                function(**(arguments | changes))
