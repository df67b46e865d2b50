"""What preference losses promise whatever the numbers are (hypothesis draws them)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from suder_ext import linear_preference_loss, linear_sequence_logprob, preference_loss
from suder_ext.preference_options import (
    LOSS_TYPES,
    NEEDS_LENGTH,
    REFERENCE_FREE,
)
from tests.ops.pairs import taken, taken_logprobs
from tests.tolerances import TOLERANCES

CLOSE = TOLERANCES["preference_loss", "cpu", torch.float32]
SORTING = ["aot", "aot_unpaired"]
# Losses of beta * (difference of log-ratios): a shift of both sequences of a pair changes nothing.
DIFFERENCE = ["sigmoid", "hinge", "exo_pair", "robust", "discopop", "aot"]
# Quarters: sums and differences of these are exact, so equalities can be asked for bit by bit.
quarters = st.integers(-200, 0).map(lambda n: n / 4)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 12)
few = settings(max_examples=25, deadline=None, derandomize=True)


def draw(pairs: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-torch.randint(0, 200, (pairs,), generator=generator) / 4 for _ in range(4)]


def lengths(pairs: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    chosen, rejected = torch.randint(1, 40, (2, pairs), generator=generator)
    return {"chosen_length": chosen, "rejected_length": rejected}


@pytest.mark.parametrize("loss_type", DIFFERENCE)
@few
@given(pairs=sizes, seed=seeds, shift=quarters)
def test_shift_of_both_sequences(loss_type: str, pairs: int, seed: int, shift: float) -> None:
    chosen, rejected, *refs = draw(pairs, seed)
    options = taken(loss_type, label_smoothing=0.1)
    plain = preference_loss(chosen, rejected, *refs, **options).loss
    shifted = preference_loss(chosen + shift, rejected + shift, *refs, **options).loss
    assert torch.equal(plain, shifted)


@pytest.mark.parametrize("loss_type", [x for x in LOSS_TYPES if x not in REFERENCE_FREE | {"sft"}])
@few
@given(pairs=sizes, seed=seeds, shift=quarters)
def test_shift_of_policy_and_reference(loss_type: str, pairs: int, seed: int, shift: float) -> None:
    chosen, rejected, ref_chosen, ref_rejected = draw(pairs, seed)
    options = taken(loss_type, label_smoothing=0.1, **lengths(pairs, seed))
    plain = preference_loss(chosen, rejected, ref_chosen, ref_rejected, **options)
    shifted = preference_loss(
        chosen + shift, rejected + shift, ref_chosen + shift, ref_rejected + shift, **options
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, shifted, strict=True))


@few
@given(pairs=sizes, seed=seeds, smoothing=st.floats(0.0, 0.99))
def test_swapping_the_pair_swaps_the_label(pairs: int, seed: int, smoothing: float) -> None:
    chosen, rejected, ref_chosen, ref_rejected = draw(pairs, seed)
    one = preference_loss(chosen, rejected, ref_chosen, ref_rejected, label_smoothing=smoothing)
    # 1 - smoothing may round to 1, which is no label smoothing any more.
    other = preference_loss(
        rejected, chosen, ref_rejected, ref_chosen, label_smoothing=min(1 - smoothing, 1 - 1e-16)
    )
    torch.testing.assert_close(one.loss, other.loss, **CLOSE)
    assert torch.equal(one.chosen_reward, other.rejected_reward)
    assert torch.equal(one.rejected_reward, other.chosen_reward)


@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "exo_pair", "robust", "discopop"])
@few
@given(pairs=sizes, seed=seeds, scale=st.sampled_from([0.5, 2.0, 4.0]))
def test_scaling_logprobs_is_scaling_beta(
    loss_type: str, pairs: int, seed: int, scale: float
) -> None:
    inputs = draw(pairs, seed)
    options = taken(loss_type, label_smoothing=0.1)
    scaled_inputs = preference_loss(*[x * scale for x in inputs], beta=0.25, **options)
    scaled_beta = preference_loss(*inputs, beta=0.25 * scale, **options)
    assert all(torch.equal(a, b) for a, b in zip(scaled_inputs, scaled_beta, strict=True))


@pytest.mark.parametrize("loss_type", sorted(NEEDS_LENGTH - {"orpo"}))
@few
@given(pairs=sizes, seed=seeds)
def test_means_do_not_depend_on_length(loss_type: str, pairs: int, seed: int) -> None:
    inputs, lens = taken_logprobs(loss_type, draw(pairs, seed)), lengths(pairs, seed)
    doubled = {name: 2 * length for name, length in lens.items()}
    one = preference_loss(*inputs, loss_type=loss_type, **lens)
    other = preference_loss(*[2 * x for x in inputs], loss_type=loss_type, **doubled)
    torch.testing.assert_close(one.loss, other.loss, **CLOSE)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@few
@given(pairs=st.integers(2, 12), seed=seeds)
def test_order_of_pairs(loss_type: str, pairs: int, seed: int) -> None:
    inputs, lens = taken_logprobs(loss_type, draw(pairs, seed)), lengths(pairs, seed)
    order = torch.randperm(pairs, generator=torch.Generator().manual_seed(seed))
    options = taken(loss_type, label_smoothing=0.1, **lens)
    plain = preference_loss(*inputs, **options)
    options |= {name: x[order] for name, x in lens.items() if name in options}
    permuted = preference_loss(*[x[order] for x in inputs], **options)
    if loss_type in SORTING:  # equal values share ranks in the order they come in
        assert torch.equal(plain.loss.sort().values, permuted.loss.sort().values)
    else:
        assert torch.equal(plain.loss[order], permuted.loss)


# DiscoPOP is not monotone (its paper, section 5.2); the sorting losses mix pairs.
@pytest.mark.parametrize("loss_type", [x for x in LOSS_TYPES if x not in [*SORTING, "discopop"]])
@few
@given(seed=seeds)
def test_better_pairs_cost_less(loss_type: str, seed: int) -> None:
    """Where a loss has not turned, raising chosen lowers it and raising rejected does not."""
    inputs = [(x / 100).requires_grad_() for x in draw(8, seed)[:2]]  # small log-ratios: no turn
    preference_loss(
        *inputs, **taken(loss_type, label_smoothing=0.1, **lengths(8, seed))
    ).loss.sum().backward()
    down = 1 if loss_type == "apo_down" else 0  # APO-down lowers both, the rejected more
    assert inputs[down].grad is not None
    assert (inputs[down].grad > 0 if down else inputs[down].grad < 0).all()


@few
@given(pairs=st.integers(0, 5), seed=seeds, with_reference=st.booleans())
def test_linear_preference_loss_is_the_composition(
    pairs: int, seed: int, with_reference: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    lens = torch.randint(1, 6, (2 * pairs,), generator=generator)
    cu_seqlens = torch.cat([torch.zeros(1, dtype=torch.int64), lens.cumsum(0)])
    tokens = int(cu_seqlens[-1])
    hidden = torch.randn(tokens, 8, generator=generator)
    weight = torch.randn(19, 8, generator=generator)
    target = torch.randint(0, 19, (tokens,), generator=generator)
    some = -torch.rand(2 * pairs, generator=generator) if with_reference else None
    for loss_type in LOSS_TYPES:
        reference = None if loss_type in REFERENCE_FREE else some
        options = taken(loss_type, label_smoothing=0.1)
        fused = linear_preference_loss(
            hidden, weight, target, cu_seqlens, ref_logprob=reference, **options
        )
        total = linear_sequence_logprob(hidden, weight, target, cu_seqlens, reduction="sum")
        refs = [] if reference is None else [reference[0::2], reference[1::2]]
        composed = preference_loss(
            total[0::2],
            total[1::2],
            *refs,
            **taken(**options, chosen_length=lens[0::2], rejected_length=lens[1::2]),
        )
        assert all(torch.equal(a, b) for a, b in zip(fused, composed, strict=True))
