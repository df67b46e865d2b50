"""`reward.model`: another checkpoint scores, frozen, and must be of the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from suder.method.rewards import DualReward
from suder.models import load_model
from suder.run.folder import RunError
from suder.run.learner import Learner
from suder.run.plan import plan
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from tests.trainer.families import small_emu3

Make = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that draws, and one of the same tokens that reads."""
    player, reader = (tmp_path_factory.mktemp(name) for name in ("player", "reader"))
    model = small_emu3(image_size=16)
    model.save(player)
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.mul_(1.3)
    model.save(reader)
    return player, reader


def test_it_scores_frozen_and_is_part_of_what_a_run_began_with(
    make_config: Make, two: tuple[Path, Path]
) -> None:
    player, reader = two
    config = make_config(f"model={player}", f"reward.model={reader}", "rounds=1")
    learner = Learner(config)
    tokens = torch.arange(8).view(2, 4)
    prompts = ["a red circle", "two blue square"]
    reward = learner.scorer.generation(prompts, tokens)
    assert torch.equal(reward, DualReward(load_model(reader)).generation(prompts, tokens))
    assert not torch.equal(reward, DualReward(load_model(player)).generation(prompts, tokens))
    assert not any(p.requires_grad for p in learner.scorer.model.parameters())
    said = plan(config).held
    assert said["reward model"] == said["weights"]
    Trainer(config, quiet=True).run()
    Trainer.resume(config.output, quiet=True)
    model = load_model(reader)
    with torch.no_grad():
        model.core.lm_head.weight.mul_(0.5)
    model.save(reader)
    with pytest.raises(RunError, match=r"reward\.model: lm_head"):
        Trainer.resume(config.output, quiet=True)


def test_another_vq_model_is_refused(
    make_config: Make, two: tuple[Path, Path], tmp_path: Path
) -> None:
    small_emu3(seed=1, image_size=16).save(tmp_path / "other")
    config = make_config(f"model={two[0]}", f"reward.model={tmp_path / 'other'}")
    with pytest.raises(ValueError, match=r"has another VQ model than the model that is trained"):
        Learner(config)


def test_another_tokenizer_is_refused(make_config: Make, two: tuple[Path, Path]) -> None:
    config = make_config(f"reward.model={two[0]}")  # of a Janus
    with pytest.raises(ValueError, match=r"reward.model: .* has another "):
        Learner(config)


def test_it_leaves_nothing_to_the_scorer(make_config: Make, two: tuple[Path, Path]) -> None:
    with pytest.raises(Exception, match=r"leave reward\.scorer frozen out"):
        make_config(f"reward.model={two[1]}", "reward.scorer=frozen")
