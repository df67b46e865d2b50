"""Rollouts: what is sampled, how it is rewarded, and that the disk gives the same back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from suder.inputs.files import DataError
from suder.method.conditions import read_conditions
from suder.method.rewards import DualReward
from suder.method.rollouts import load_rollouts, save_rollouts
from suder.method.sampling import sample_rollouts
from suder.method.scoring import reward_of
from suder.models import load_model
from suder.models.decoder.adapter import DecoderModel
from suder.run.rounds import random_reward
from suder.settings.candidates import Sampling

SETTINGS = Sampling(max_new_tokens=6)
PROMPTS = ["a red circle", "two blue square"]


@pytest.fixture(scope="module")
def model(model_folder: Path) -> DecoderModel:
    return load_model(model_folder)


@pytest.fixture(scope="module")
def pictures(inputs_folder: Path) -> list[str]:
    return [str(path) for path in sorted((inputs_folder / "pictures").glob("*.png"))]


def test_same_seed_same_candidates(model: DecoderModel, pictures: list[str]) -> None:
    first = sample_rollouts(model, "understanding", pictures[:3], 4, SETTINGS, seed=1)
    again = sample_rollouts(model, "understanding", pictures[:3], 4, SETTINGS, seed=1)
    other = sample_rollouts(model, "understanding", pictures[:3], 4, SETTINGS, seed=2)
    assert len(first) == 12
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens, other.tokens)


def test_rewards_are_those_of_each_candidate_alone(
    model: DecoderModel, pictures: list[str]
) -> None:
    """Cross-checked one by one through the public DualReward, from pixels and from text."""
    scorer = DualReward(model)
    captions = sample_rollouts(model, "understanding", pictures[:2], 3, SETTINGS, seed=1)
    condition = read_conditions(model, "understanding", captions.inputs).values
    reward = reward_of(captions, scorer, model, condition)
    texts = model.detokenize(captions.sequences())
    for place, text in enumerate(texts):
        shown = condition[place // 3][None]
        tokens = shown if model.reads_tokens else model.encode(shown)
        alone = scorer.understanding(tokens, [text])
        assert torch.isnan(alone).item() == torch.isnan(reward[place]).item()
        if text:
            torch.testing.assert_close(reward[place], alone[0])
    drawn = sample_rollouts(model, "generation", PROMPTS, 3, SETTINGS, seed=1)
    reward = reward_of(drawn, scorer, model, PROMPTS)
    for place, tokens in enumerate(drawn.pictures()):
        alone = scorer.generation([PROMPTS[place // 3]], tokens[None])
        torch.testing.assert_close(reward[place], alone[0])


def test_disk_gives_the_same_back(model: DecoderModel, pictures: list[str], tmp_path: Path) -> None:
    rounds = [
        sample_rollouts(
            model, "understanding", [*pictures[:2], str(tmp_path / "gone.png")], 2, SETTINGS, 3
        ),
        sample_rollouts(model, "generation", PROMPTS, 2, SETTINGS, 3),
    ]
    save_rollouts(tmp_path / "sample.safetensors", rounds)
    for before, after in zip(rounds, load_rollouts(tmp_path / "sample.safetensors"), strict=True):
        assert (before.direction, before.inputs, before.group, before.lost) == (
            after.direction, after.inputs, after.group, after.lost,
        )  # fmt: skip
        for name in ("tokens", "cu_seqlens", "logprob", "finished"):
            assert torch.equal(getattr(before, name), getattr(after, name)), name


def test_pictures_gone_since_the_start(
    model: DecoderModel, pictures: list[str], tmp_path: Path
) -> None:
    gone = str(tmp_path / "gone.png")
    rollouts = sample_rollouts(model, "understanding", [gone, pictures[0]], 2, SETTINGS, seed=1)
    assert rollouts.inputs == (pictures[0],)
    assert rollouts.lost[0][0] == gone
    assert len(rollouts) == 2
    with pytest.raises(DataError, match=r"none of the round's pictures .*gone.png"):
        sample_rollouts(model, "understanding", [gone], 2, SETTINGS, seed=1)


def test_prompts_that_are_too_long_are_left_out(model: DecoderModel) -> None:
    """Also those that could be drawn, but not found again in the picture."""
    long = " ".join(["red"] * 300)
    edge = " ".join(["red"] * model.longest_text)  # and EOS
    assert not model.too_long("generation", edge)
    assert model.too_long("understanding", edge)
    found = read_conditions(model, "generation", [long, *PROMPTS, edge], most=2)
    assert found.inputs == tuple(found.values) == tuple(PROMPTS)
    assert len(found.lost) == 1
    found = read_conditions(model, "generation", [*PROMPTS, edge, long])
    assert [why[:8] for _, why in found.lost] == ["too long"] * 2
    assert max(len(name) for name, _ in found.lost) < 400
    with pytest.raises(
        DataError, match=rf"none of the round's prompts .* too long: .* {model.positions} positions"
    ):
        sample_rollouts(model, "generation", [long], 2, SETTINGS, seed=1)


def test_random_rewards_know_nothing_but_emptiness(
    model: DecoderModel, pictures: list[str]
) -> None:
    rollouts = sample_rollouts(
        model, "understanding", pictures, 8, Sampling(max_new_tokens=2), seed=1
    )
    reward = random_reward(rollouts, model, seed=4)
    empty = torch.tensor([not text for text in model.detokenize(rollouts.sequences())])
    assert 0 < int(empty.sum()) < len(empty)
    assert torch.equal(reward.isnan(), empty)
    assert reward[~empty].min() >= 0
    assert reward[~empty].max() < 1
    assert torch.equal(reward.nan_to_num(9), random_reward(rollouts, model, seed=4).nan_to_num(9))
