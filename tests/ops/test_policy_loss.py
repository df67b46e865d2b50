"""policy_loss against its formulas in float64, and at its edges."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from suder_ext import policy_loss, reference
from suder_ext.policy_options import MEANING
from tests.ops.backends import use_backend
from tests.ops.policy_by_hand import by_hand, metrics_by_hand
from tests.tolerances import TOLERANCES

CLOSE = TOLERANCES["policy_loss", "cpu", torch.float32]
LENGTHS = [4, 0, 7, 1, 300]  # an empty sequence, a single token, one much longer than the rest
REDUCTIONS, LEVELS = ("sequence", "token", "constant", "sum"), ("token", "sequence")
SETTINGS = list(itertools.product(REDUCTIONS, LEVELS, (0.0, 0.05)))
CORRECTED = {"kl_coef": 0.5, "kl_bias_correction": True}
# Every surrogate, estimator and kind of weight, each with what it can be beside.
VARIANTS: dict[str, dict[str, Any]] = {
    "delta": {"delta": 1.5, "per_token": True},
    "delta sequence": {"delta": 1.02, "level": "sequence", "clip": 0.01, "weighted": True},
    "luspo": {"loss_type": "luspo", "level": "sequence", "per_token": True, **CORRECTED},
    "cispo": {"loss_type": "cispo", "clip_high": 1.2, "weighted": True, **CORRECTED},
    "cispo sequence": {"loss_type": "cispo", "clip_high": 0.99, "level": "sequence"},
    "sapo": {"loss_type": "sapo", "sapo_temperature": (0.7, 1.3), "per_token": True},
    "sapo sequence": {"loss_type": "sapo", "level": "sequence", "weighted": True, **CORRECTED},
    "vespo": {"loss_type": "vespo", "weighted": True, "kl_coef": 0.5},
    "vespo per token": {"loss_type": "vespo", "per_token": True, "vespo_k": (1.0, 0.0)},
    "gmpo": {"loss_type": "gmpo", **CORRECTED},
    "gmpo per token": {"loss_type": "gmpo", "per_token": True, "weighted": True},
    "gpg": {"loss_type": "gpg", "weighted": True},
    "k1": {"kl_coef": 0.5, "kl_estimator": "k1", "weighted": True},
    "k2": {"kl_estimator": "k2", "level": "sequence", **CORRECTED},
    "k1 corrected": {"kl_estimator": "k1", **CORRECTED},
    "items": {"num_items": 37.5, "loss_type": "dapo"},
    "items of sequences": {"num_items": 11, "reduction": "constant", "max_length": 20},
    "sampler": {"sampled": True, "sampling_min": 0.9, "sampling_max": 1.2, "weighted": True},
    "sampler masked": {"sampled": True, "sampling_mode": "token_mask", "sampling_max": 1.2},
    "sampler sequence": {"sampled": True, "sampling_mode": "sequence_truncate"},
    "sampler sequence masked": {"sampled": True, "sampling_mode": "sequence_mask"},
    "sampler vespo": {"sampled": True, "loss_type": "vespo", "sampling_mode": "token_mask"},
    "entropy": {"entropic": True, "top_entropy_quantile": 0.3, "kl_coef": 0.5},
}


def offsets(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)])


def batch(lengths: list[int] = LENGTHS, seed: int = 0) -> dict[str, Tensor]:
    """Ratios on both sides of the clip range, advantages of both signs."""
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    new = -3 * torch.rand(tokens, generator=generator)
    return {
        "logprob": new,
        "old_logprob": new + 0.4 * torch.randn(tokens, generator=generator),
        "advantage": torch.randn(len(lengths), generator=generator),
        "cu_seqlens": offsets(lengths),
        "ref_logprob": new + 0.4 * torch.randn(tokens, generator=generator),
    }


def used(arguments: dict[str, Tensor], kl_coef: float) -> dict[str, Tensor]:
    """Without the reference where no KL is asked for."""
    return {name: x for name, x in arguments.items() if kl_coef or name != "ref_logprob"}


def variant(name: str, lengths: list[int] = LENGTHS) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the options of one of VARIANTS."""
    generator = torch.Generator().manual_seed(1)
    tokens = sum(lengths)
    arguments, options = batch(lengths), dict(VARIANTS[name])
    if options.pop("per_token", False):
        arguments["advantage"] = torch.randn(tokens, generator=generator)
    if options.pop("weighted", False):
        arguments["token_weight"] = 2 * torch.rand(tokens, generator=generator)
    if options.pop("sampled", False):
        noise = 0.3 * torch.randn(tokens, generator=generator)
        arguments["sampling_logprob"] = arguments["old_logprob"] + noise
    if options.pop("entropic", False):
        arguments["entropy"] = torch.rand(tokens, generator=generator)
    return used(arguments, options.get("kl_coef", 0.0)), options


CONSTANTS = {"sampling_logprob", "entropy", "cu_seqlens"}


def value_and_gradients(function, arguments: dict[str, Tensor], **options: Any) -> list[Tensor]:
    arguments = used(arguments, options.get("kl_coef", 0.0))
    leaves = {
        name: x.detach().clone().requires_grad_(name not in CONSTANTS)
        for name, x in arguments.items()
    }
    loss = function(**leaves, **options)
    floats = [x for x in leaves.values() if x.requires_grad]
    grads = torch.autograd.grad(3 * loss, floats, allow_unused=True, materialize_grads=True)
    return [loss.detach(), *grads]


def double(arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: x.double() if x.is_floating_point() else x for n, x in arguments.items()}


@pytest.mark.parametrize(("reduction", "level", "kl_coef"), SETTINGS)
@pytest.mark.parametrize("lengths", [LENGTHS, [], [0, 0], [5000, 6000]], ids=str)
def test_matches_float64(
    lengths: list[int], reduction: str, level: str, kl_coef: float, backend: str
) -> None:
    arguments = batch(lengths)
    options = {
        "reduction": reduction,
        "level": level,
        "kl_coef": kl_coef,
        "clip": 0.2,
        "clip_high": 0.3,
    }
    got = value_and_gradients(policy_loss, arguments, **options)
    expected = value_and_gradients(reference.policy_loss, double(arguments), **options)
    for ours, oracle in zip(got, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), oracle, **CLOSE)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_matches_its_formula(name: str, backend: str) -> None:
    arguments, options = variant(name)
    got = value_and_gradients(policy_loss, arguments, **options)
    expected = value_and_gradients(by_hand, double(arguments), **options)
    for ours, oracle in zip(got, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), oracle, **CLOSE)


@pytest.mark.parametrize("name", VARIANTS)
def test_metrics_of_every_variant(name: str, backend: str) -> None:
    arguments, options = variant(name)
    result = policy_loss(**arguments, **options, return_metrics=True)
    assert torch.equal(result.loss, policy_loss(**arguments, **options))
    expected = metrics_by_hand(**double(arguments), **options)
    for field, ours in result.metrics._asdict().items():
        assert not ours.requires_grad
        torch.testing.assert_close(ours.double(), expected[field], **CLOSE, msg=field)


def test_metrics_of_a_batch_without_tokens(backend: str) -> None:
    for lengths in ([], [0, 0]):
        result = policy_loss(**used(batch(lengths), 0.0), return_metrics=True)
        assert result.loss == 0
        assert all(x.isnan() for x in result.metrics)


def test_loss_type_names_its_reduction() -> None:
    arguments = used(batch([2, 6]), 0.0)
    for loss_type, reduction in (
        *(("grpo", "sequence"), ("bnpo", "token"), ("dapo", "token")),
        *(("dr_grpo", "constant"), ("luspo", "sum")),
    ):
        named = policy_loss(**arguments, loss_type=loss_type)
        assert torch.equal(named, policy_loss(**arguments, reduction=reduction))
        assert torch.equal(
            policy_loss(**arguments, loss_type=loss_type, reduction="token"),
            policy_loss(**arguments, loss_type="dapo"),
        )


def test_num_items_as_a_tensor(backend: str) -> None:
    arguments = batch()
    number, tensor = (
        value_and_gradients(policy_loss, arguments, reduction="token", num_items=n)
        for n in (640.0, torch.tensor(640))
    )
    for one, other in zip(number, tensor, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_losses_of_parts_with_a_global_count_add_up(backend: str) -> None:
    whole, parts = batch([4, 7, 30]), []
    for first, last, lengths in ((0, 11, [4, 7]), (11, 41, [30])):
        rows = slice(0, 2) if first == 0 else slice(2, 3)
        part = {n: x[first:last] for n, x in whole.items() if x.numel() == 41}
        part |= {"advantage": whole["advantage"][rows], "cu_seqlens": offsets(lengths)}
        parts.append(policy_loss(**used(part, 0.0), loss_type="dapo", num_items=41))
    expected = policy_loss(**used(whole, 0.0), loss_type="dapo")
    torch.testing.assert_close(sum(parts), expected, **CLOSE)


def test_an_unknown_sampling_logprob_corrects_nothing(backend: str) -> None:
    arguments, options = variant("sampler")
    arguments["sampling_logprob"][::3] = math.nan
    known = arguments["sampling_logprob"].isnan()
    filled = arguments["sampling_logprob"].where(~known, arguments["old_logprob"])
    expected = policy_loss(**(arguments | {"sampling_logprob": filled}), **options)
    assert torch.equal(policy_loss(**arguments, **options), expected)


@pytest.mark.parametrize("apart", [89.0, 700.0, 2000.0])
@pytest.mark.parametrize("name", ["grpo", "delta", "delta sequence", "cispo", "sapo", "vespo"])
def test_extreme_ratios_stop_at_the_clip(name: str, apart: float, backend: str) -> None:
    """What is clipped is finite, and so is its gradient: 0, or that of the likelihood."""
    options = {} if name == "grpo" else dict(VARIANTS[name])
    for key in ("per_token", "weighted", *CORRECTED):
        options.pop(key, None)
    new = torch.tensor([apart, -apart, apart, 0.0]).requires_grad_()
    old, cu = torch.zeros(4), torch.tensor([0, 1, 2, 4])
    signs = (1.0, -1.0) if options.get("delta") or name in ("cispo", "sapo", "vespo") else (1.0,)
    for sign in signs:
        loss = policy_loss(new, old, torch.full((3,), sign), cu, **options)
        (grad,) = torch.autograd.grad(loss, new)
        assert loss.isfinite()
        assert grad.isfinite().all()


@pytest.mark.parametrize("level", LEVELS)
def test_on_policy_value_is_minus_the_advantage(level: str) -> None:
    """Ratio 1 everywhere: the loss is -mean(advantage), its gradient that of REINFORCE."""
    arguments = batch([3, 3])
    arguments |= {"old_logprob": arguments["logprob"], "ref_logprob": arguments["logprob"]}
    loss, grad, *_ = value_and_gradients(policy_loss, arguments, level=level, kl_coef=0.1)
    torch.testing.assert_close(loss, -arguments["advantage"].mean())
    torch.testing.assert_close(grad, -3 * arguments["advantage"].repeat_interleave(3) / 6)


def test_clipped_tokens_have_no_gradient() -> None:
    advantage = torch.tensor([1.0, -1.0])
    log_ratio = torch.tensor([-1.0, 0.0, 1.0] * 2)  # below, inside, above the range
    arguments = {
        "logprob": log_ratio - 5,
        "old_logprob": torch.full((6,), -5.0),
        "advantage": advantage,
        "cu_seqlens": offsets([3, 3]),
    }
    _, grad, *_ = value_and_gradients(policy_loss, arguments)
    assert (grad == 0).tolist() == [False, False, True, True, False, False]


def test_max_length_is_the_constant() -> None:
    arguments = used(batch([2, 6]), 0.0)
    longest = policy_loss(**arguments, reduction="constant")
    twice = policy_loss(**arguments, reduction="constant", max_length=12)
    torch.testing.assert_close(longest, 2 * twice)


@pytest.mark.parametrize("loss_type", MEANING)
@pytest.mark.parametrize(
    "name", ["logprob", "old_logprob", "advantage", "ref_logprob", "token_weight"]
)
def test_nan_reaches_the_loss(name: str, loss_type: str, backend: str) -> None:
    arguments = batch([3, 3]) | {"token_weight": torch.ones(6)}
    arguments[name][1] = math.nan
    options = {"loss_type": loss_type, "kl_coef": 0.1, "clip_high": 0.2}
    if loss_type != "gpg" or name != "old_logprob":
        assert policy_loss(**arguments, **options).isnan()


def test_same_bits_for_any_instruction_set_and_threads(isa: str) -> None:
    arguments = batch([5000, 3, 6000, 0, 77])
    outcomes = []
    for name, threads in ((isa, 1), (isa, 2), ("portable", 1)):
        torch.set_num_threads(threads)
        with use_backend(name):
            outcomes.append(
                value_and_gradients(policy_loss, arguments, kl_coef=0.1)
                + value_and_gradients(policy_loss, arguments, loss_type="sapo", level="sequence")
            )
    for other in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 1.0}, r"clip is 1.0"),
        ({"clip_high": -0.1}, r"clip_high is -0.1"),
        ({"reduction": "mean"}, r"reduction is 'mean'.*constant"),
        ({"loss_type": "ppo"}, r"loss_type is 'ppo'.*grpo"),
        ({"kl_estimator": "k4"}, r"kl_estimator is 'k4'.*k1, k2, k3"),
        ({"loss_type": "cispo"}, r"clip_high is None.*largest ratio itself"),
        ({"delta": 2.0, "loss_type": "sapo"}, r"delta is 2.0; loss_type='sapo' does not use it"),
        ({"delta": 0.0}, r"delta is 0.0"),
        ({"level": "sequence", "loss_type": "gmpo"}, r"level is 'sequence'; loss_type='gmpo'"),
        ({"num_items": 0}, r"num_items is 0"),
        ({"sapo_temperature": (1.0, 0.0)}, r"sapo_temperature is \(1.0, 0.0\)"),
        ({"top_entropy_quantile": 0.2}, r"entropy is None and top_entropy_quantile is 0.2"),
        (
            {"sampling_logprob": batch()["logprob"], "sampling_mode": "all"},
            r"sampling_mode is 'all",
        ),
        (
            {"sampling_logprob": batch()["logprob"], "sampling_max": 0.5, "sampling_min": 0.5},
            r"sampling_max is 0.5",
        ),
        (
            {
                "sampling_logprob": batch()["logprob"],
                "sampling_mode": "sequence_mask",
                "loss_type": "vespo",
            },
            r"sampling_mode is 'sequence_mask'; loss_type='vespo'",
        ),
        ({"level": "word"}, r"level is 'word'.*sequence"),
        ({"max_length": 0}, r"max_length is 0"),
        ({"kl_coef": 0.1}, r"ref_logprob is None.*kl_coef=0.1"),
        ({"ref_logprob": batch()["ref_logprob"]}, r"ref_logprob is given; kl_coef=0 does not"),
        ({"max_length": 3}, r"max_length is 3; reduction='sequence' does not use it"),
        ({"max_length": 3, "reduction": "token"}, r"max_length is 3; reduction='token' does not"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_loss(**(used(batch(), 0.0) | options))


@pytest.mark.parametrize("entries", [[1, 5], [0, 3, 2, 5], [0, 4], [0, 6]], ids=str)
def test_bad_cu_seqlens(entries: list[int], backend: str) -> None:
    arguments = used(batch([5]), 0.0) | {
        "cu_seqlens": torch.tensor(entries),
        "advantage": torch.zeros(len(entries) - 1),
    }
    with pytest.raises(ValueError, match="cu_seqlens"):
        policy_loss(**arguments)
