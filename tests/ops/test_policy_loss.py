"""policy_loss against float64 autograd, against TRL's GRPO trainer, and at its edges."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from suder_ext import policy_loss, reference
from tests.ops.backends import use_backend
from tests.tolerances import TOLERANCES

CLOSE = TOLERANCES["policy_loss", "cpu", torch.float32]
LENGTHS = [4, 0, 7, 1, 300]  # an empty sequence, a single token, one much longer than the rest
REDUCTIONS, LEVELS = ("sequence", "token", "constant"), ("token", "sequence")
SETTINGS = list(itertools.product(REDUCTIONS, LEVELS, (0.0, 0.05)))


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


def value_and_gradients(function, arguments: dict[str, Tensor], **options: Any) -> list[Tensor]:
    arguments = used(arguments, options.get("kl_coef", 0.0))
    leaves = {
        name: x.detach().clone().requires_grad_(x.is_floating_point())
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


def trl_grpo_loss(arguments: dict[str, Tensor], lengths: list[int], **settings: Any) -> Tensor:
    """GRPOTrainer's loss of the same batch, padded, with a model that returns given numbers."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()

    def padded(values: Tensor) -> Tensor:
        return torch.zeros(mask.shape).masked_scatter(mask.bool(), values)

    new = padded(arguments["logprob"])
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
        ),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=max(lengths),
        _entropy_bonus_enabled=False,
        _metrics={"eval": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (new, torch.zeros_like(new), None),
        **settings,
    )
    inputs = {
        "prompt_ids": mask,
        "prompt_mask": mask,
        "completion_ids": mask,
        "completion_mask": mask,
        "advantages": arguments["advantage"],
        "old_per_token_logps": padded(arguments["old_logprob"]),
        "ref_per_token_logps": padded(arguments["ref_logprob"]),
        "num_items_in_batch": mask.sum(),
    }
    return GRPOTrainer._compute_loss(trainer, None, inputs)


@pytest.mark.parametrize("kl_coef", [0.0, 0.05])
@pytest.mark.parametrize(
    ("loss_type", "reduction", "level"),
    [
        ("grpo", "sequence", "token"),
        ("grpo", "sequence", "sequence"),  # GSPO
        ("dapo", "token", "token"),
        ("dr_grpo", "constant", "token"),
    ],
)
def test_grpo_trainer(loss_type: str, reduction: str, level: str, kl_coef: float) -> None:
    pytest.importorskip("trl")
    lengths = [4, 7, 1, 30]
    arguments = batch(lengths)
    theirs = trl_grpo_loss(
        arguments,
        lengths,
        loss_type=loss_type,
        importance_sampling_level=level,
        beta=kl_coef,
        epsilon_low=0.2,
        epsilon_high=0.28,
    )
    ours = policy_loss(
        **used(arguments, kl_coef),
        clip=0.2,
        clip_high=0.28,
        kl_coef=kl_coef,
        reduction=reduction,
        level=level,
    )
    torch.testing.assert_close(ours, theirs, **CLOSE)


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


@pytest.mark.parametrize("name", ["logprob", "old_logprob", "advantage", "ref_logprob"])
def test_nan_reaches_the_loss(name: str, backend: str) -> None:
    arguments = batch([3, 3])
    arguments[name][1] = math.nan
    assert policy_loss(**arguments, kl_coef=0.1).isnan()


def test_same_bits_for_any_instruction_set_and_threads(isa: str) -> None:
    arguments = batch([5000, 3, 6000, 0, 77])
    outcomes = []
    for name, threads in ((isa, 1), (isa, 2), ("portable", 1)):
        torch.set_num_threads(threads)
        with use_backend(name):
            outcomes.append(value_and_gradients(policy_loss, arguments, kl_coef=0.1))
    for other in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 1.0}, r"clip is 1.0"),
        ({"clip_high": -0.1}, r"clip_high is -0.1"),
        ({"reduction": "mean"}, r"reduction is 'mean'.*constant"),
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
