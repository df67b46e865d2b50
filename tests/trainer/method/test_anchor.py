"""The KL to the start: the exact one's gradient, and samples of a direction that is not trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from suder.method.anchor import add_anchor
from suder.method.conditions import read_conditions
from suder.method.gradients import add_gradient
from suder.method.rollouts import Rollouts
from suder.method.sampling import sample_rollouts
from suder.method.selection import select
from suder.models import load_model
from suder.models.base import Condition
from suder.settings.config import TrainConfig
from suder.settings.learning import Lora
from tests.tolerances import TOLERANCES

Make = Callable[..., TrainConfig]
CASES = {
    "plain": (),
    "several blocks": ("optimizer.tokens_per_batch=30",),
    "cfg": ("sampling.guidance=3.0", "sampling.policy=cfg", "sampling.temperature=1.5"),
    "lora": ("lora.rank=2",),
    "activations": ("optimizer.checkpoint_activations=true",),
    "bfloat16": ("dtype=bfloat16",),
}


def moved(model: Any, scale: float = 0.05) -> Any:
    """Or every KL would be 0."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model


def policy_and_start(folder: Path, config: TrainConfig) -> tuple[Any, Any]:
    compute = torch.bfloat16 if config.dtype == "bfloat16" else None
    policy = load_model(folder, compute=compute)
    if config.lora.rank:
        pytest.importorskip("peft")
        policy.add_lora(Lora(rank=config.lora.rank), 0)
    policy.checkpoint_activations = config.optimizer.checkpoint_activations
    start = policy.eval().frozen_copy()
    return moved(policy), start


def drawn(
    model: Any, direction: str, inputs: Path, config: TrainConfig, group: int
) -> tuple[Rollouts, Condition]:
    pool = ["a red circle", "two blue square and a red circle", "a green square"]
    if direction == "understanding":
        pool = [str(path) for path in sorted((inputs / "pictures").glob("*.png"))[:3]]
    rollouts = sample_rollouts(model, direction, pool, group, config.sampling, seed=2)
    return rollouts, read_conditions(model, direction, pool).values


def expected(
    policy: Any, start: Any, rollouts: Rollouts, condition: Condition, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """KL of each position, and the mean over sequences of its mean: logits in full, in float64."""
    guided = rollouts.direction == "generation" and config.sampling.policy == "cfg"
    guidance = config.sampling.guidance if guided else 1.0

    def logprobs(model: Any) -> Tensor:
        given = rollouts.direction, condition, rollouts.targets(), rollouts.group, guidance
        hidden, _, _, weight, bias = model(*given)
        logits = hidden.double() @ weight.double().T
        logits = logits if bias is None else logits + bias.double()
        return (logits / config.sampling.temperature).log_softmax(-1)

    p = logprobs(policy)
    with torch.no_grad():
        q = logprobs(start)
    kl = (p.exp() * (p - q)).sum(-1)
    each = kl.split(rollouts.cu_seqlens.diff().tolist())
    return kl.detach(), torch.stack([one.mean() for one in each]).mean()


def gradients(policy: Any) -> list[Tensor]:
    found = [one.grad for one in policy.trainable_parameters()]
    policy.zero_grad(set_to_none=True)
    return [one.clone() for one in found if one is not None]


@pytest.mark.parametrize("direction", ["understanding", "generation"])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_the_whole_distribution(
    make_config: Make, lively_model_folder: Path, inputs_folder: Path, case: str, direction: str
) -> None:
    """Of candidates that are trained, where nothing but the KL pulls, and of those held."""
    weights = "objective.kl=0.7", "objective.anchor=0.7"
    config = make_config(*CASES[case], f"directions={direction}", *weights)
    policy, start = policy_and_start(lively_model_folder, config)
    tolerance = TOLERANCES["kl_gradient", "cpu", getattr(torch, config.dtype)]
    for group in (4, 1):
        rollouts, condition = drawn(policy, direction, inputs_folder, config, group)
        kl, mean = expected(policy, start, rollouts, condition, config)
        (0.7 * mean).backward()
        oracle = gradients(policy)
        if group == 1:
            found = add_anchor(policy, start, rollouts, condition, config)
        else:
            equal = select(torch.ones(len(rollouts)), group)
            sums = add_gradient(policy, start, rollouts, equal, condition, config)
            found = sums.kl / sums.tokens
        assert float(kl.mean()) > 1e-3
        assert found == pytest.approx(float(kl.mean()), rel=tolerance["rtol"])
        largest = max(float(one.abs().max()) for one in oracle)
        for got, right in zip(gradients(policy), oracle, strict=True):
            torch.testing.assert_close(
                got, right, rtol=tolerance["rtol"], atol=tolerance["atol"] * largest
            )


def test_a_token_that_has_become_improbable_makes_no_step_of_its_own(
    make_config: Make, lively_model_folder: Path, inputs_folder: Path
) -> None:
    """Later steps on a round's samples: k3 of such a token is exp(q - p), without bound."""
    norms = {}
    for estimator in ("exact", "k3"):
        config = make_config(f"objective.kl_estimator={estimator}", "objective.kl=0.1")
        policy, start = policy_and_start(lively_model_folder, config)
        rollouts, condition = drawn(start, "generation", inputs_folder, config, 4)
        moved(policy, 0.2)
        equal = select(torch.ones(len(rollouts)), 4)
        add_gradient(policy, start, rollouts, equal, condition, config)
        norms[estimator] = sum(float(one.square().sum()) for one in gradients(policy)) ** 0.5
    assert norms["exact"] < 2.0
    assert norms["k3"] > 20 * norms["exact"]
