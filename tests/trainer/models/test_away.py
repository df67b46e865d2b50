"""Copies whose layers stay on the host: the same bits, and they follow the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from suder import DualReward, sample
from suder.engine import graphs
from suder.engine.weights import to_sample_with
from suder.models.away import comes_and_goes, moved, products, send_away
from suder.models.base import DIRECTIONS
from suder.run.plan import plan
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.learning import Lora

Make = Callable[..., TrainConfig]
CAPTIONS = ["a red circle", "two circles", "a blue square", "and"]


def answers(model: Any, prompts: Any, pictures: Any) -> list[torch.Tensor]:
    """Tokens, log p and rewards of both directions, with guidance; hidden states of a forward."""
    found: list[torch.Tensor] = []
    for direction in DIRECTIONS:
        seen = direction == "understanding"
        condition, guidance = (model.pixels(pictures), 1.0) if seen else (prompts, 3.0)
        drawn = sample(model, direction, condition, 3, seed=4, guidance=guidance, max_new_tokens=9)
        found += [*drawn.tokens, *drawn.logprob, *drawn.entropy]
        with torch.no_grad():
            found.append(model(direction, condition, drawn.tokens, 3, guidance).hidden)
        if not seen:
            reward, tokens = DualReward(model), drawn.tokens[::3]
            found += [reward.understanding(tokens, CAPTIONS), reward.generation(prompts, tokens)]
    return found


def on_meta(model: Any) -> bool:
    return all(one.is_meta for _, layer in products(model) for one in layer.parameters())


def assert_equal(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def change(weights: Any) -> None:
    make = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in weights:
            weight += 0.02 * torch.randn(weight.shape, generator=make)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_whose_layers_are_away_answers_alike(
    fresh_model: Any, prompts: Any, pictures: Any, dtype: torch.dtype
) -> None:
    """As one of a divided policy: what is written to the tensors on the host is what it then has,
    and what the 16-bit copy of all else has, which is made of it.
    """
    if dtype == torch.bfloat16:
        fresh_model.compute = dtype
        plain, refresh = fresh_model.inference_copy(dtype)
        refresh()
    else:
        plain = fresh_model.frozen_copy()
    twin = copy.copy(plain)
    twin._modules = {**plain._modules, "model": copy.deepcopy(plain.model)}
    host = moved(twin, "cpu")
    assert on_meta(twin)
    assert len(host) >= 14
    assert_equal(answers(twin, prompts, pictures), before := answers(plain, prompts, pictures))
    assert on_meta(twin)
    for model in (twin, to_sample_with(twin)):
        step = model.start("generation", prompts, 2, 4).step.layers[0]
        assert step.joined is None
        assert step.query in model.modules()
    change(dict(plain.named_parameters())[name] for name in host)
    for name, one in plain.named_parameters():
        if name in host:
            host[name].copy_(one.detach())
    after = answers(plain, prompts, pictures)
    assert not all(map(torch.equal, before[-2:], after[-2:]))
    assert_equal(answers(twin, prompts, pictures), after)


@pytest.mark.parametrize("rank", [0, 3])
def test_a_16_bit_copy_whose_layers_are_away_follows_the_weights(
    fresh_model: Any, prompts: Any, pictures: Any, rank: int
) -> None:
    if rank:
        pytest.importorskip("peft")
        fresh_model.add_lora(Lora(rank=rank), seed=0)
    fresh_model.compute = torch.bfloat16
    away = copy.copy(fresh_model)
    away.__dict__ = dict(fresh_model.__dict__)
    away.copies_away = True
    for _ in range(2):
        plain = answers(fresh_model, prompts, pictures)
        assert_equal(answers(away, prompts, pictures), plain)
        change(fresh_model.trainable_parameters())
    twin = to_sample_with(away)
    assert on_meta(twin)
    assert not on_meta(away)
    assert to_sample_with(away) is twin


@pytest.mark.parametrize(
    "changes",
    [
        ("reward.scorer=frozen",),
        ("dtype=bfloat16", "optimizer.start_dtype=bfloat16"),
    ],
)
def test_a_run_is_the_same(make_config: Make, lively_model_folder: Path, changes: Any) -> None:
    common = (f"model={lively_model_folder}", "guard.every=1", "objective.kl=0.05", *changes)
    here = make_config(*common, output="here")
    away = make_config(*common, "sampling.offload=true", output="away")
    for config in (here, away):
        trainer = Trainer(config, quiet=True)
        trainer.run()
        learner = trainer.learner
        gone = [comes_and_goes(to_sample_with(one)) for one in (learner.policy, learner.start)]
        if config is here:
            assert gone == [False, False]
        else:
            assert gone == [config.dtype == "bfloat16", True]
    for pattern in ("rounds/*/*.safetensors", "model/*.safetensors"):
        ours, theirs = (sorted(Path(one.output).glob(pattern)) for one in (here, away))
        assert len(ours) == len(theirs) > 0
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(
                load_file(one), load_file(other), rtol=0, atol=0, equal_nan=True
            )


def test_what_comes_and_goes_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded step would read where a weight once was."""

    class Model(nn.Module):
        device = torch.device("cuda")

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

    monkeypatch.setattr(graphs, "_recorder", lambda device: lambda step: step)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=1)
    )
    model = Model()
    assert graphs.graphs_of(model) is not None
    send_away(model.layer, torch.device("cpu"))
    assert graphs.graphs_of(model) is None


@pytest.mark.parametrize(
    ("changes", "processes", "copies"),
    [
        (
            ("dtype=bfloat16", "optimizer.start_dtype=bfloat16"), 1,
            {"start model": 2, "16-bit copies": 2},
        ),
        (("dtype=bfloat16", "lora.rank=2"), 1, {"16-bit copies": 4}),
        (("optimizer.shard=true",), 4, {"start model": 4, "whole copy to draw with": 4}),
        (
            ("dtype=bfloat16", "optimizer.shard=true"), 4,
            {"start model": 2, "whole copy to draw with": 2},
        ),
    ],
)  # fmt: skip
def test_the_plan_counts_it(
    make_config: Make, changes: tuple[str, ...], processes: int, copies: dict[str, int]
) -> None:
    """`copies`: bytes that leave the device for each number of a layer, all layers of a part."""
    here, away = (
        plan(make_config(*changes, f"sampling.offload={on}"), processes) for on in ("false", "true")
    )
    left = {name: here.held[name] - away.held[name] for name in here.held}
    coming = -left.pop("a layer at work")
    sent = {name: count for name, count in left.items() if count}
    assert sent.keys() == copies.keys()
    assert away.host - here.host == sum(sent.values())
    assert len({sent[name] / each for name, each in copies.items()}) == 1
    assert 0 < coming < min(sent.values())
    assert away.phases == here.phases
