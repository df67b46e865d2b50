"""preference_loss against float64 autograd: every loss, divergence, argument and gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from suder_ext import preference_loss, reference
from suder_ext.preference_options import (
    F_DIVERGENCES,
    LOSS_TYPES,
    NEEDS_LENGTH,
    TAKES_F_DIVERGENCE,
    TAKES_LABEL_SMOOTHING,
)
from tests.ops.backends import use_backend
from tests.ops.pairs import taken, taken_logprobs
from tests.tolerances import TOLERANCES

CLOSE = TOLERANCES["preference_loss", "cpu", torch.float32]
CASES = [
    (loss_type, f_divergence)
    for loss_type in LOSS_TYPES
    for f_divergence in F_DIVERGENCES
    if f_divergence == "reverse_kl" or loss_type in TAKES_F_DIVERGENCE
]


def logprobs(pairs: int, seed: int = 0) -> list[Tensor]:
    """Chosen, rejected and their references: sums over sequences, so negative and spread."""
    generator = torch.Generator().manual_seed(seed)
    policy = [-30 * torch.rand(pairs, generator=generator) for _ in range(2)]
    return policy + [x + 2 * torch.randn(pairs, generator=generator) for x in policy]


def lengths(pairs: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    chosen, rejected = torch.randint(0, 20, (2, pairs), generator=generator)  # 0: counts as 1
    return {"chosen_length": chosen, "rejected_length": rejected}


def results_and_gradients(function, inputs, upstream, **options):
    inputs = [x.clone().requires_grad_() for x in inputs]
    results = function(*inputs, **options)
    gradients = torch.autograd.grad(
        results, inputs, upstream, allow_unused=True, materialize_grads=True
    )
    return [x.detach() for x in results], list(gradients)


def check(inputs: list[Tensor], **options) -> None:
    """Our float32 results and gradients are those of the reference in float64.

    Of inputs and options, those that the loss takes.
    """
    inputs, options = taken_logprobs(options["loss_type"], inputs), taken(**options)
    generator = torch.Generator().manual_seed(2)
    upstream = [torch.randn(inputs[0].shape, generator=generator) for _ in range(3)]
    got = results_and_gradients(preference_loss, inputs, upstream, **options)
    expected = results_and_gradients(
        reference.preference_loss,
        [x.double() for x in inputs],
        [x.double() for x in upstream],
        **options,
    )
    for ours, oracle in zip(got[0] + got[1], expected[0] + expected[1], strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), oracle, **CLOSE)


@pytest.mark.parametrize(("loss_type", "f_divergence"), CASES)
def test_matches_float64(loss_type: str, f_divergence: str, backend: str) -> None:
    for pairs in (0, 1, 2, 37, 1500):  # none, alone, one task of the kernel, more than one
        inputs, some_lengths = logprobs(pairs), lengths(pairs)
        for arguments, options in [
            (inputs, some_lengths),
            (inputs[:2], some_lengths),
            *([] if loss_type in NEEDS_LENGTH else [(inputs, {}), (inputs[:2], {})]),
        ]:
            check(
                arguments,
                loss_type=loss_type,
                f_divergence=f_divergence,
                beta=0.3,
                label_smoothing=0.1,
                margin=0.7,
                **options,
            )


@pytest.mark.parametrize("smoothing", [0.001, 0.25, 0.49])
@pytest.mark.parametrize("loss_type", sorted(TAKES_LABEL_SMOOTHING))
def test_label_smoothing(loss_type: str, smoothing: float) -> None:
    check(logprobs(9), loss_type=loss_type, label_smoothing=smoothing, **lengths(9))


ARGUMENTS = {
    "label_smoothing": {"label_smoothing": 0.2},
    "margin": {"margin": 0.3},
    "f_divergence": {"f_divergence": "js_divergence"},
    "chosen_length": {
        "chosen_length": torch.tensor([0, 3, 2, 5]),
        "rejected_length": torch.tensor([1, 2, 7, 4]),
    },
    "ref_chosen_logprob": dict(
        zip(["ref_chosen_logprob", "ref_rejected_logprob"], logprobs(4)[2:], strict=True)
    ),
}


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_an_argument_that_changes_nothing_is_an_error_that_names_it(
    loss_type: str, argument: str
) -> None:
    """The table of loss x argument: each is used, or refused."""
    given, own = ARGUMENTS[argument], {"loss_type": loss_type}
    inputs = taken_logprobs(loss_type, logprobs(4, 3)) if "length" in argument else logprobs(4)[:2]
    if loss_type == "exo_pair":
        own["label_smoothing"] = 0.1
    if loss_type in NEEDS_LENGTH:
        own |= {
            "chosen_length": torch.tensor([4, 3, 3, 3]),
            "rejected_length": torch.tensor([3, 2, 1, 1]),
        }
    without = preference_loss(*inputs, **own)
    for function in (preference_loss, reference.preference_loss):
        try:
            result = function(*inputs, **(own | given))
        except ValueError as error:
            refusal = str(error)
        else:
            assert not all(torch.equal(a, b) for a, b in zip(without, result, strict=True))
            continue
        assert refusal.startswith(f"{argument} is")
        assert f"loss_type={loss_type!r} does not use it" in refusal


@pytest.mark.parametrize("scale", [1e-6, 1e2, 1e4])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_extreme_log_ratios_stay_finite(loss_type: str, scale: float) -> None:
    policy = scale * torch.tensor([-1.0, -2.0, -1.0, -3.0, 0.0])
    other = scale * torch.tensor([-3.0, -1.0, -1.0, -0.5, 0.0])
    inputs = taken_logprobs(loss_type, [policy, other, torch.zeros(5), torch.zeros(5)])
    options = taken(loss_type, label_smoothing=0.1, beta=0.5, **lengths(5))
    results, gradients = results_and_gradients(
        preference_loss, inputs, [torch.ones(5)] * 3, **options
    )
    assert all(x.isfinite().all() for x in results + gradients)
    check(inputs, **options)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_nan_stays_in_its_pair(loss_type: str) -> None:
    inputs = taken_logprobs(loss_type, logprobs(6))
    options = taken(loss_type, label_smoothing=0.1, **lengths(6))
    clean = preference_loss(*inputs, **options)
    inputs[0][2] = math.nan
    dirty = preference_loss(*inputs, **options)
    assert dirty.loss[2].isnan()
    assert dirty.chosen_reward[2].isnan()
    if loss_type in ("aot", "aot_unpaired"):  # a pair less among the ranks moves the others
        assert dirty.loss.isfinite().sum() == 5
    else:
        rest = torch.arange(6) != 2
        for before, after in zip(clean, dirty, strict=True):
            assert torch.equal(before[rest], after[rest])


def test_gradient_only_where_upstream_is_not_zero() -> None:
    inputs = [x.requires_grad_() for x in logprobs(5)]
    preference_loss(*inputs).loss[3].backward()
    for x in inputs:
        assert x.grad is not None
        assert x.grad.nonzero().flatten().tolist() == [3]


def test_backward_twice() -> None:
    inputs = [x.requires_grad_() for x in logprobs(5)]
    loss = preference_loss(*inputs, loss_type="aot").loss.sum()
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    second = torch.autograd.grad(loss, inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_inputs_give_float32(dtype: torch.dtype) -> None:
    inputs = [x.to(dtype) for x in logprobs(7)]
    got, expected = preference_loss(*inputs), preference_loss(*[x.float() for x in inputs])
    for ours, oracle in zip(got, expected, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, oracle)


def test_non_contiguous_inputs() -> None:
    pairs = torch.stack(logprobs(7), dim=1)
    strided = preference_loss(*pairs.unbind(1))
    packed = preference_loss(*[x.contiguous() for x in pairs.unbind(1)])
    assert torch.equal(strided.loss, packed.loss)


def test_same_bits_for_any_instruction_set_and_threads(isa: str) -> None:
    inputs = [x.requires_grad_() for x in logprobs(5000)]
    for loss_type in ("sigmoid", "aot"):
        outcomes = []
        for name, threads in ((isa, 1), (isa, 2), ("portable", 1)):
            torch.set_num_threads(threads)
            with use_backend(name):
                results = preference_loss(*inputs, loss_type=loss_type)
                outcomes.append([*results, *torch.autograd.grad(results.loss.sum(), inputs)])
        for other in outcomes[1:]:
            assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other, strict=True))


@pytest.mark.parametrize("loss_type", sorted(NEEDS_LENGTH))
def test_missing_lengths(loss_type: str) -> None:
    with pytest.raises(ValueError, match=r"chosen_length and rejected_length.*averages"):
        preference_loss(*logprobs(3)[:2], loss_type=loss_type)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "dpo"}, r"loss_type is 'dpo'.*sigmoid"),
        ({"f_divergence": "kl"}, r"f_divergence is 'kl'.*reverse_kl"),
        ({"beta": 0.0}, r"beta is 0.0.*above 0"),
        ({"beta": math.nan}, r"beta is nan.*above 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1.0"),
        ({"loss_type": "exo_pair"}, r"label_smoothing is 0.*exo_pair"),
        ({"loss_type": "robust", "label_smoothing": 0.5}, r"label_smoothing is 0.5.*robust"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preference_loss(*logprobs(3), **options)


def test_half_a_reference_and_half_the_lengths() -> None:
    with pytest.raises(ValueError, match=r"ref_chosen_logprob and.*together or not at all"):
        preference_loss(*logprobs(3)[:3])
    for half in lengths(3).items():
        with pytest.raises(ValueError, match=r"chosen_length and.*together or not at all"):
            preference_loss(*logprobs(3)[:2], loss_type="orpo", **dict([half]))


@pytest.mark.parametrize("loss_type", ["sft", "cpo", "orpo", "aot", "aot_unpaired"])
def test_a_pair_with_an_empty_sequence_changes_no_other(loss_type: str, backend: str) -> None:
    inputs = taken_logprobs(loss_type, logprobs(6))
    some = {"chosen_length": torch.arange(1, 7), "rejected_length": torch.arange(2, 8)}
    some["chosen_length"][1] = some["rejected_length"][4] = 0
    rest = torch.tensor([0, 2, 3, 5])
    beside = preference_loss(*inputs, loss_type=loss_type, **some)
    alone = preference_loss(
        *(x[rest] for x in inputs), loss_type=loss_type, **{n: x[rest] for n, x in some.items()}
    )
    for with_them, without in zip(beside, alone, strict=True):
        assert torch.equal(with_them[rest], without)
    assert beside.loss.isfinite().all()
