"""Weights of picture tokens and the entropy anchor, written out in float64 a token at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from suder.method.combine import combine
from suder.method.conditions import read_conditions
from suder.method.entropy import entropy_reward, mean_entropy
from suder.method.objectives import objective_loss
from suder.method.selection import select
from suder.method.token_weight import critical, siblings
from suder.models import load_model
from suder.settings.candidates import Reward
from suder.settings.config import TrainConfig
from suder.settings.config_file import ConfigError
from suder.settings.learning import ObjectiveSection
from tests.tolerances import TOLERANCES
from tests.trainer.method.test_gradients import (
    another,
    assert_cut_is_free,
    gradient_of,
    rollouts_of,
)

Make = Callable[..., TrainConfig]
OBJECTIVE = TOLERANCES["objective", "cpu", torch.float32]
ENTROPY = TOLERANCES["entropy", "cpu", torch.float32]


@pytest.mark.parametrize("tokens", [1, 7, 16, 30])
def test_critical_tokens_are_the_first_and_the_least_sure(tokens: int) -> None:
    entropy = torch.rand(5, tokens, generator=torch.Generator().manual_seed(tokens)).round(
        decimals=1
    )
    ours = critical(entropy)
    count = math.ceil(0.1 * tokens)
    for row, values in zip(ours, entropy.tolist(), strict=True):
        highest = sorted(range(tokens), key=lambda k: (-values[k], k))[:count]
        chosen = {*range(count), *highest}
        expected = [tokens / len(chosen) if k in chosen else 0.0 for k in range(tokens)]
        torch.testing.assert_close(row.double(), torch.tensor(expected).double(), **OBJECTIVE)


def oracle_of_siblings(codes, advantage, valid, codebook):
    book = codebook.astype(np.float64)
    count, tokens = codes.shape
    weights = np.ones((count, tokens))
    for i in range(count):
        others = [
            j for j in range(count) if j != i and valid[j] and advantage[i] * advantage[j] <= 0
        ]
        for k in range(tokens if others else 0):
            a = book[codes[i, k]]
            cosines = [
                a @ book[codes[j, k]] / np.linalg.norm(a) / np.linalg.norm(book[codes[j, k]])
                for j in others
            ]
            weights[i, k] = min(max((1 - np.mean(cosines)) / 2, 0), 1)
    return weights / weights.mean(1, keepdims=True)


def test_siblings_of_the_opposite_advantage_take_from_what_looks_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(6, (3, 4, 9), generator=generator)
    codebook = torch.randn(6, 3, generator=generator) * 5
    advantage = torch.tensor([[1.0, -0.5, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, -1.0, 0.5]])
    valid = torch.tensor([[True] * 4, [True] * 4, [True, False, True, True]])
    ours = siblings(codes, advantage, valid, codebook).view(3, 4, 9)
    for row in range(3):
        given = (codes[row].numpy(), advantage[row].numpy(), valid[row].numpy())
        expected = oracle_of_siblings(*given, codebook.numpy())
        torch.testing.assert_close(ours[row].double(), torch.from_numpy(expected), **OBJECTIVE)
    assert torch.equal(ours[1], torch.ones(4, 9))  # nobody is opposed
    same = siblings(codes[:1, :1].expand(1, 2, 9), torch.tensor([[1.0, -1.0]]),
                    torch.ones(1, 2, dtype=torch.bool), codebook)  # fmt: skip
    assert torch.equal(same, torch.zeros(2, 9))  # and of the very same picture nothing is learnt


def test_weights_are_of_the_policy_gradient_alone() -> None:
    """Of grpo's first term, not of the KL."""
    lengths, advantage = (3, 4), torch.tensor([1.0, -2.0])
    generator = torch.Generator().manual_seed(1)
    new, old, start = (-3 * torch.rand(7, generator=generator) for _ in range(3))
    weight = torch.rand(7, generator=generator)
    new.requires_grad_()
    settings = ObjectiveSection(kl=0.3, kl_estimator="k3")
    cu_seqlens = torch.tensor([0, 3, 7])
    loss = objective_loss(
        settings, new, torch.arange(7), cu_seqlens, advantage, old, start, token_weight=weight
    )
    expected = torch.zeros((), dtype=torch.float64)
    parts = zip(*(one.double().split(lengths) for one in (new, old, start, weight)), strict=True)
    for b, (p, o, q, w) in enumerate(parts):
        ratio = (p - o).exp()
        first = torch.min(ratio * advantage[b], ratio.clamp(0.8, 1.2) * advantage[b])
        expected = expected - (w * first).mean() + 0.3 * ((q - p).exp() - 1 - (q - p)).mean()
    torch.testing.assert_close(loss.double(), expected, **OBJECTIVE)
    ours, theirs = (torch.autograd.grad(one, new)[0] for one in (loss, expected))
    torch.testing.assert_close(ours, theirs, **OBJECTIVE)


@pytest.mark.parametrize("how", ["critical", "siblings"])
def test_the_cut_into_blocks_is_free_and_texts_have_no_weights(
    random_model_folder: Path, inputs_folder: Path, make_config: Make, how: str
) -> None:
    policy, start = load_model(random_model_folder), another(random_model_folder)
    made = [
        make_config(f"objective.token_weight={how}", f"optimizer.tokens_per_batch={tokens}")
        for tokens in (100000, 30)
    ]
    plain = make_config("optimizer.tokens_per_batch=100000")
    for direction in ("understanding", "generation"):
        rollouts = rollouts_of(policy, direction, inputs_folder, made[0])
        reward = torch.rand(len(rollouts), generator=torch.Generator().manual_seed(3))
        reward[[1, 6]] = torch.nan
        chosen = select(reward, rollouts.group)
        assert_cut_is_free(policy, start, rollouts, chosen, *made)
        ours, _ = gradient_of(policy, start, rollouts, chosen, made[0])
        usual, _ = gradient_of(policy, start, rollouts, chosen, plain)
        same = all(map(torch.equal, ours, usual))
        assert same == (direction == "understanding")


def test_every_family_has_a_codebook(shared_model) -> None:
    codes, width = shared_model.codebook.shape
    assert codes == shared_model.image_vocab_size
    assert width > 1
    assert not shared_model.codebook.requires_grad


@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_the_entropy_reward_is_that_of_all_logits(
    random_model_folder: Path,
    lively_model_folder: Path,
    inputs_folder: Path,
    make_config: Make,
    direction: str,
) -> None:
    policy, start = load_model(lively_model_folder), load_model(random_model_folder)
    config = make_config("sampling.temperature=0.7", "optimizer.tokens_per_batch=60")
    rollouts = rollouts_of(policy, direction, inputs_folder, config)
    condition = read_conditions(policy, direction, rollouts.inputs).values
    expected = []
    for model in (policy, start):
        rows = []
        for i, ids in enumerate(rollouts.sequences()):
            place = i // rollouts.group
            targets = ids[None] if direction == "generation" else [ids]
            with torch.no_grad():
                hidden = model(direction, condition[place : place + 1], targets)
            logits = hidden.hidden.double() @ hidden.weight.double().T
            if hidden.bias is not None:
                logits = logits + hidden.bias.double()
            p = (logits / 0.7).log_softmax(-1)
            rows.append(-(p.exp() * p).sum(-1).mean())
        expected.append(torch.stack(rows))
        ours = mean_entropy(model, rollouts, condition, config)
        torch.testing.assert_close(ours.double(), expected[-1], **ENTROPY)
    reward = entropy_reward(policy, start, rollouts, condition, config)
    wanted = 1 / (1 + (expected[1] - expected[0]) ** 2)
    torch.testing.assert_close(reward.double(), wanted, **ENTROPY)
    assert wanted.std() > 1e-3


def test_the_anchor_is_added_beside_the_groups_mean() -> None:
    dual = torch.tensor([1.0, 2.0, math.nan, 4.0, 0.0, 0.0, 0.0, 0.0])
    near = torch.tensor([0.5, 1.0, 0.1, 0.3, 0.25, 0.75, 0.5, 0.5])
    ours = combine({"dual": dual, "entropy": near}, Reward(), 4, entropy=2.0)
    mean = (0.5 + 1.0 + 0.3) / 3
    expected = [1 + 2 * (0.5 - mean), 2 + 2 * (1 - mean), math.nan, 4 + 2 * (0.3 - mean)]
    expected += [-0.5, 0.5, 0.0, 0.0]
    torch.testing.assert_close(
        ours.double(), torch.tensor(expected).double(), **OBJECTIVE, equal_nan=True
    )


def test_where_it_has_no_meaning_it_is_refused(make_config: Make) -> None:
    with pytest.raises(ConfigError, match=r"token_weight is critical, which simpo does not use"):
        make_config("objective.name=simpo", "objective.token_weight=critical")
    with pytest.raises(ConfigError, match="directions understanding draws none"):
        make_config("directions=understanding", "objective.token_weight=siblings")
