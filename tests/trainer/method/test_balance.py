"""The step from two directions' gradients, and the averaged weights."""

from __future__ import annotations

import math

import pytest
import torch

from suder.method.balance import Balance, Updater, norm_of
from suder.settings.learning import Optimizer


def updater(**settings: object) -> Updater:
    generator = torch.Generator().manual_seed(1)
    named = [
        ("a", torch.randn(4, 3, generator=generator, requires_grad=True)),
        ("b", torch.randn(5, generator=generator, requires_grad=True)),
    ]
    return Updater(named, Optimizer(**settings))


def gradient(seed: int, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        scale * torch.randn(4, 3, generator=generator),
        scale * torch.randn(5, generator=generator),
    ]


def test_directions_end_with_the_same_norm_and_the_same_total() -> None:
    balance = Balance(enabled=True)
    factors = balance.factors({"understanding": 8.0, "generation": 0.6})
    assert factors["understanding"] * 8.0 == pytest.approx(factors["generation"] * 0.6)
    total = math.hypot(*(factors[name] * norm for name, norm in balance.smooth.items()))
    assert total == pytest.approx(math.hypot(8.0, 0.6))


def test_norms_are_smoothed() -> None:
    balance = Balance(enabled=True)
    balance.factors({"understanding": 1.0, "generation": 1.0})
    balance.factors({"understanding": 11.0, "generation": 1.0})
    assert balance.smooth["understanding"] == pytest.approx(0.9 * 1.0 + 0.1 * 11.0)


def test_one_direction_alone_is_left_as_it_is() -> None:
    assert Balance(enabled=True).factors({"generation": 7.0}) == {"generation": 7.0 / 7.0}


def test_alternating_directions_are_balanced_too() -> None:
    """The one that is absent this round is remembered."""
    balance = Balance(enabled=True)
    balance.factors({"understanding": 4.0})
    assert balance.factors({"generation": 1.0})["generation"] == pytest.approx(
        math.sqrt((16 + 1) / 2)
    )


def test_no_signal_and_no_number_do_not_count() -> None:
    balance = Balance(enabled=True)
    assert balance.factors({"understanding": 0.0, "generation": math.nan}) == {
        "understanding": 1.0,
        "generation": 1.0,
    }
    assert balance.smooth == {}


def test_factors_are_limited() -> None:
    factors = Balance(enabled=True).factors({"understanding": 1e6, "generation": 1e-6})
    assert factors["generation"] == 20.0


def test_switched_off() -> None:
    factors = Balance(enabled=False).factors({"understanding": 8.0, "generation": 0.6})
    assert set(factors.values()) == {1.0}


def test_step_is_adamw_on_the_clipped_balanced_sum() -> None:
    """Against torch's own AdamW, three steps, fed by hand with what the formulas say."""
    ours = updater(lr=0.01, warmup_rounds=2, grad_clip=0.5, weight_decay=0.1)
    theirs = [param.detach().clone().requires_grad_() for param in ours.params]
    adam = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    balance = Balance(enabled=True)
    for step in range(3):
        parts = {"understanding": gradient(step, 3.0), "generation": gradient(step + 9, 0.2)}
        norms = {name: norm_of(part) for name, part in parts.items()}
        factors = balance.factors(norms)
        total = [
            factors["understanding"] * u + factors["generation"] * g
            for u, g in zip(parts["understanding"], parts["generation"], strict=True)
        ]
        for param, part in zip(theirs, total, strict=True):
            param.grad = part * min(1.0, 0.5 / norm_of(total))
        adam.param_groups[0]["lr"] = 0.01 * min(1.0, (step + 1) / 2)
        adam.step()
        log = ours.step(parts, norms)
        ours.end_round()
        assert log["grad_norm/total"] == pytest.approx(norm_of(total), rel=1e-5)
        assert log["lr"] == pytest.approx(adam.param_groups[0]["lr"])
    for param, expected in zip(ours.params, theirs, strict=True):
        torch.testing.assert_close(param, expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    ours = updater()
    before = [param.detach().clone() for param in ours.params]
    parts = {"generation": gradient(1, bad)}
    log = ours.step(parts, {"generation": norm_of(parts["generation"])})
    assert log["skipped"] == 1.0
    assert all(map(torch.equal, before, ours.params))
    assert not ours.balance.smooth


def test_no_gradient_at_all_is_no_step() -> None:
    """Adam's momentum would move the weights on a round that taught nothing."""
    ours = updater()
    ours.step({"generation": gradient(1)}, {"generation": 1.0})
    before = [param.detach().clone() for param in ours.params]
    ours.step({"generation": gradient(1, 0.0)}, {"generation": 0.0})
    assert all(map(torch.equal, before, ours.params))


def test_average_follows_and_is_exchanged_in_and_out() -> None:
    ours = updater(lr=0.1, ema=0.5, warmup_rounds=0)
    average = [param.detach().clone() for param in ours.params]
    for step in range(4):
        parts = {"generation": gradient(step)}
        ours.step(parts, {"generation": norm_of(parts["generation"])})
        ours.end_round()
        decay = min(0.5, (2 + step) / (11 + step))
        average = [
            decay * mean + (1 - decay) * param.detach()
            for mean, param in zip(average, ours.params, strict=True)
        ]
    live = [param.detach().clone() for param in ours.params]
    with ours.averaged():
        for param, expected in zip(ours.params, average, strict=True):
            torch.testing.assert_close(param.detach(), expected)
    assert all(map(torch.equal, live, ours.params))


def test_state_goes_on_with_the_same_bits() -> None:
    ours, twin = updater(), updater()
    for step in range(3):
        ours.step({"generation": gradient(step)}, {"generation": 1.0 + step})
        ours.end_round()
    tensors, meta = ours.state()
    twin.load_state({name: tensor.clone() for name, tensor in tensors.items()}, meta)
    for one in (ours, twin):
        one.step({"understanding": gradient(7)}, {"understanding": 2.0})
        one.end_round()
    assert all(map(torch.equal, ours.params, twin.params))
    assert all(map(torch.equal, ours.average, twin.average))
    assert ours.state()[1] == twin.state()[1]


def test_restart_halves_the_rate_and_forgets_the_momentum() -> None:
    ours = updater(lr=0.1, warmup_rounds=0)
    weights = {name: torch.ones_like(p) for name, p in zip(ours.names, ours.params, strict=True)}
    ours.step({"generation": gradient(1)}, {"generation": 1.0})
    ours.restart(weights)
    assert all((param == 1).all() for param in [*ours.params, *ours.average])
    log = ours.step({"generation": gradient(2)}, {"generation": 1.0})
    assert log["lr"] == pytest.approx(0.05)
    moved = torch.cat([(param.detach() - 1).abs().flatten() for param in ours.params])
    torch.testing.assert_close(moved, torch.full_like(moved, 0.05), rtol=1e-4, atol=0)


def test_offloaded_or_not_the_same_bits() -> None:
    """On one device the two differ in the order of what is done, not in what is added."""
    runs = []
    for offload in (False, True):
        ours = updater(lr=0.01, offload=offload)
        for seed in range(3):
            gradients = {}
            norms = {}
            for name in ("understanding", "generation"):
                for param, grad in zip(ours.params, gradient(7 * seed + len(name)), strict=True):
                    param.grad = grad
                gradients[name], norms[name] = ours.take_gradient()
            ours.step(gradients, norms)
            ours.end_round()
        with ours.averaged():
            inside = [param.detach().clone() for param in ours.params]
        runs.append([*inside, *ours.params, *ours.average])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
