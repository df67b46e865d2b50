"""group_advantage: values, extremes, and what it promises whatever the rewards are."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suder_ext import reference
from suder_ext.functional import group_advantage
from tests.tolerances import TOLERANCES

CLOSE = TOLERANCES["group_advantage", "cpu", torch.float32]
NORMALIZATIONS = ["std", "mean", None]
NAN, INF = math.nan, math.inf
few = settings(max_examples=50, deadline=None, derandomize=True)
rewards = st.integers(-160, 0).map(lambda n: n / 16) | st.sampled_from([NAN, INF, -INF])


@st.composite
def groups(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    size, count = draw(st.integers(1, 8)), draw(st.integers(0, 4))
    values = draw(st.lists(rewards, min_size=size * count, max_size=size * count))
    return torch.tensor(values, dtype=torch.float32), size


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("size", [1, 2, 8])
def test_matches_float64(size: int, normalize: str | None, backend: str) -> None:
    reward = -5 * torch.rand(size * 40, generator=torch.Generator().manual_seed(0))
    for row, value in enumerate([NAN, INF, -INF]):
        reward[row::7] = value
    reward[:size] = NAN
    reward[size : 2 * size] = -INF
    got = group_advantage(reward, size, normalize)
    expected = reference.group_advantage(reward.double(), size, normalize)
    torch.testing.assert_close(got[0].double(), expected[0], **CLOSE)
    assert torch.equal(got[1], expected[1])
    assert torch.equal(got[2], expected[2])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_known_values(bad: float, backend: str) -> None:
    reward = torch.tensor([1, 2, bad, 4, bad, bad, NAN, bad, -1, -1, -1, -1])
    advantage, best, worst = group_advantage(reward, 4, "mean")
    expected = torch.tensor([-4 / 3, -1 / 3, 0, 5 / 3] + [0] * 8)
    torch.testing.assert_close(advantage, expected, **CLOSE)
    assert best.tolist() == [3, -1, 8]
    assert worst.tolist() == [0, -1, 8]
    deviation = torch.tensor([1.0, 2.0, 4.0]).std()
    normalised, _, _ = group_advantage(reward, 4, "std")
    torch.testing.assert_close(normalised, expected / (deviation + 1e-4), **CLOSE)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@few
@given(case=groups(), seed=st.integers(0, 1000))
def test_permutation_within_groups(normalize: str | None, case, seed: int) -> None:
    reward, size = case
    count = len(reward) // size
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat(
        [g * size + torch.randperm(size, generator=generator) for g in range(count)]
        or [torch.zeros(0, dtype=torch.int64)]
    )
    plain, best, worst = group_advantage(reward, size, normalize)
    permuted, new_best, new_worst = group_advantage(reward[order], size, normalize)
    torch.testing.assert_close(permuted, plain[order], **CLOSE)
    for old, new in ((best, new_best), (worst, new_worst)):
        assert torch.equal(old < 0, new < 0)
        some = old >= 0
        assert torch.equal(reward[old[some]], reward[order][new[some]])


@few
@given(case=groups(), normalize=st.sampled_from(NORMALIZATIONS))
def test_groups_do_not_mix(case, normalize: str | None) -> None:
    reward, size = case
    advantage, best, _ = group_advantage(reward, size, normalize)
    for g in range(len(reward) // size):
        alone, alone_best, _ = group_advantage(reward[g * size : (g + 1) * size], size, normalize)
        assert torch.equal(alone, advantage[g * size : (g + 1) * size])
        assert best[g] == (alone_best[0] + g * size if alone_best[0] >= 0 else -1)


@few
@given(case=groups(), normalize=st.sampled_from(NORMALIZATIONS))
def test_what_is_not_finite_is_left_out(case, normalize: str | None) -> None:
    """Such candidates get 0; the others get what they get without them."""
    reward, size = case
    advantage, best, worst = group_advantage(reward, size, normalize)
    assert (advantage[~reward.isfinite()] == 0).all()
    for g in range(len(reward) // size):
        group = reward[g * size : (g + 1) * size]
        kept = group.isfinite()
        if not kept.any():
            assert best[g] == worst[g] == -1
            continue
        expected, _, _ = group_advantage(group[kept], int(kept.sum()), normalize)
        assert torch.equal(advantage[g * size : (g + 1) * size][kept], expected)
        assert reward[best[g]] == group[kept].max()
        assert reward[worst[g]] == group[kept].min()


@few
@given(case=groups(), shift=st.integers(-8, 8), scale=st.sampled_from([0.5, 2.0]))
def test_shift_and_scale(case, shift: int, scale: float) -> None:
    reward, size = case
    plain, *_ = group_advantage(reward, size, "mean")
    shifted, *_ = group_advantage(reward + shift, size, "mean")
    scaled, *_ = group_advantage(reward * scale, size, "mean")
    torch.testing.assert_close(shifted, plain, **CLOSE)
    torch.testing.assert_close(scaled, plain * scale, **CLOSE)


@pytest.mark.parametrize("size", [0, -1, 3])
def test_bad_group_size(size: int) -> None:
    with pytest.raises(ValueError, match="group_size"):
        group_advantage(torch.zeros(4), size)
