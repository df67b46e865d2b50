"""The objectives' values and gradients against their papers' formulas, written out in float64."""

from __future__ import annotations

import math

import pytest
import torch

from suder.method.objectives import objective_loss, trained_candidates
from suder.method.selection import Selection, select
from suder.settings.learning import ObjectiveSection
from tests.tolerances import TOLERANCES

NAMES = ("grpo", "simpo", "dpo", "expert")
LENGTHS = (3, 1, 4, 2)  # two pairs; a sequence of one token among them
ADVANTAGE = (1.0, -0.5, 0.0, 2.0)


def packed(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -torch.rand(sum(LENGTHS), generator=generator) * 3


def oracle(settings: ObjectiveSection, new: torch.Tensor, old: torch.Tensor, start: torch.Tensor):
    """Sum over sequences (pairs), every formula spelt out a token at a time."""
    new_of = new.double().split(LENGTHS)
    old_of = old.double().split(LENGTHS)
    start_of = start.double().split(LENGTHS)
    beta = settings.beta or {"simpo": 5.0, "dpo": 0.1}.get(settings.name, 0.0)
    total = new.new_zeros((), dtype=torch.float64)
    for b, (p, o, q) in enumerate(zip(new_of, old_of, start_of, strict=True)):
        weight = 0.5 if settings.name in ("simpo", "dpo") else 1.0
        k3 = torch.exp(q - p) - 1 - (q - p)
        total = total + weight * settings.kl * k3.mean()
        if settings.name == "grpo":
            ratio = torch.exp(p - o)
            clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
            total = total - torch.min(ratio * ADVANTAGE[b], clipped * ADVANTAGE[b]).mean()
        if settings.name == "expert":
            total = total - p.mean()
    for b in range(0, len(LENGTHS), 2):
        if settings.name == "simpo":
            margin = 0.5 if settings.margin is None else settings.margin
            x = beta * (new_of[b].mean() - new_of[b + 1].mean()) - margin
            total = total + torch.log1p(torch.exp(-x))
        if settings.name == "dpo":
            chosen = new_of[b].sum() - start_of[b].sum()
            rejected = new_of[b + 1].sum() - start_of[b + 1].sum()
            total = total + torch.log1p(torch.exp(-beta * (chosen - rejected)))
    return total


@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient(name: str, kl: float) -> None:
    settings = ObjectiveSection(name=name, kl=kl, kl_estimator="k3" if kl else "exact")
    new, old, start = packed(1), packed(2), packed(3)
    new.requires_grad_()
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0)
    target = torch.arange(sum(LENGTHS))
    loss = objective_loss(
        settings, new, target, cu_seqlens, torch.tensor(ADVANTAGE), old, start
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, new)
    expected = oracle(settings, new, old, start)
    (expected_gradient,) = torch.autograd.grad(expected, new)
    tolerance = TOLERANCES["objective", "cpu", torch.float32]
    torch.testing.assert_close(loss.double(), expected, **tolerance)
    torch.testing.assert_close(gradient, expected_gradient, **tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_an_exact_kl_is_averaged_over_each_sequence(name: str) -> None:
    """In place of k3, and with its weight: a pair's two sequences count half each."""
    settings = ObjectiveSection(name=name, kl=0.3)
    new, old, start = packed(1), packed(2), packed(3)
    divergence = packed(4).neg().requires_grad_()
    rest = new, torch.arange(10), torch.tensor([0, *LENGTHS]).cumsum(0), torch.tensor(ADVANTAGE)
    loss = objective_loss(settings, *rest, old, start, kl=divergence)
    (gradient,) = torch.autograd.grad(loss, divergence)
    weight = 0.5 if name in ("simpo", "dpo") else 1.0
    expected = oracle(settings.model_copy(update={"kl": 0.0}), new, old, start)
    each = divergence.detach().double().split(LENGTHS)
    expected = expected + 0.3 * weight * sum(one.mean() for one in each)
    share = torch.cat([torch.full((n,), 0.3 * weight / n) for n in LENGTHS])
    tolerance = TOLERANCES["objective", "cpu", torch.float32]
    torch.testing.assert_close(loss.detach().double(), expected, **tolerance)
    torch.testing.assert_close(gradient, share, **tolerance)


def test_another_preference_loss() -> None:
    """`objective.loss_type` reaches the kernel: IPO is a parabola around 1 / (2 beta)."""
    settings = ObjectiveSection(name="dpo", kl=0.0, loss_type="ipo", beta=0.25)
    start = packed(3)
    new = (start + 1.0).requires_grad_()  # both ratios are 1 a token: their difference is 0
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0)
    loss = objective_loss(
        settings, new, torch.arange(10), cu_seqlens, torch.zeros(4), new.detach(), start
    )
    tolerance = TOLERANCES["objective", "cpu", torch.float32]
    torch.testing.assert_close(loss.item(), 2 * (1 / (2 * 0.25)) ** 2, **tolerance)


def test_dpo_without_a_start_model() -> None:
    with pytest.raises(ValueError, match="dpo needs the start model"):
        objective_loss(
            ObjectiveSection(name="dpo", kl=0.0), packed(1), torch.arange(10),
            torch.tensor([0, *LENGTHS]).cumsum(0), torch.zeros(4), packed(1), None,
        )  # fmt: skip


def test_kl_alone_pulls_towards_the_start() -> None:
    """With no advantage the gradient of the k3 term has the sign of log p - log q."""
    new, start = packed(1).requires_grad_(), packed(3)
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0)
    settings = ObjectiveSection(kl=0.1, kl_estimator="k3")
    loss = objective_loss(
        settings, new, torch.arange(10), cu_seqlens, torch.zeros(4), new.detach(), start
    )
    (gradient,) = torch.autograd.grad(loss, new)
    assert torch.equal(gradient.sign(), (new.detach() - start).sign())


def test_selection_of_a_group() -> None:
    """Population by hand: rewards 1, 2, NaN, 6 and an all-equal group, an all-NaN one."""
    nan = math.nan
    reward = torch.tensor([1.0, 2.0, nan, 6.0, 4.0, 4.0, 4.0, 4.0, nan, nan, nan, math.inf])
    chosen = select(reward, 4)
    std = math.sqrt((4 + 1 + 9) / 2)  # unbiased, of three
    tolerance = TOLERANCES["advantage", "cpu", torch.float32]
    torch.testing.assert_close(
        chosen.advantage[:4], torch.tensor([-2 / std, -1 / std, 0.0, 3 / std]), **tolerance
    )
    assert chosen.advantage[4:].eq(0).all()
    assert chosen.best.tolist() == [3, 4, -1]
    assert chosen.worst.tolist() == [0, 4, -1]
    assert chosen.paired.tolist() == [True, False, False]
    assert chosen.valid.tolist() == [True, True, False, True] + [True] * 4 + [False] * 4
    assert select(reward, 4, "mean").advantage[:4].tolist() == [-2.0, -1.0, 0.0, 3.0]
    assert select(reward, 4, "none").advantage[:4].tolist() == [1.0, 2.0, 0.0, 6.0]


@pytest.fixture
def selection() -> Selection:
    nan = math.nan
    return select(torch.tensor([1.0, 3.0, 2.0, 5.0, 5.0, 5.0, 7.0, nan, 0.5, nan, nan, nan]), 3)


@pytest.mark.parametrize(
    ("objective", "rows", "index"),
    [
        ("grpo", [0, 1, 2], [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),  # the equal group has its KL
        ("simpo", [0, 2], [[1, 0], [6, 8]]),
        ("dpo", [0, 2], [[1, 0], [6, 8]]),
        ("expert", [0, 2], [[1], [6]]),
    ],
)
def test_who_is_trained(selection: Selection, objective: str, rows, index) -> None:
    trained = trained_candidates(objective, selection, 3)
    assert trained.rows.tolist() == rows
    assert trained.index.tolist() == index
    left_out = [7] if objective == "grpo" else []
    assert trained.index[~trained.valid].tolist() == left_out


def test_nobody_is_trained_when_nothing_is_valid() -> None:
    nothing = select(torch.full((6,), math.nan), 3)
    for objective in NAMES:
        assert trained_candidates(objective, nothing, 3).index.numel() == 0
