"""The gradient of a round: the ratio of fresh samples, and that the cut into batches is free."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from suder.method.blocks import Block, blocks
from suder.method.conditions import read_conditions
from suder.method.gradients import Sums, add_gradient
from suder.method.objectives import trained_candidates
from suder.method.rollouts import Rollouts
from suder.method.sampling import sample_rollouts
from suder.method.selection import Selection, select
from suder.models import load_model
from suder.models.decoder.adapter import DecoderModel
from suder.models.decoder.teacher_forcing import tokens_read
from suder.settings.config import TrainConfig
from suder_ext import linear_sequence_logprob
from suder_ext.preference_options import LOSS_TYPES
from tests.tolerances import TOLERANCES


@pytest.fixture
def policy(model_folder: Path) -> DecoderModel:
    return load_model(model_folder)


@pytest.fixture
def start(model_folder: Path) -> DecoderModel:
    return another(model_folder)


@pytest.fixture(scope="module")
def shared(random_model_folder: Path) -> tuple[DecoderModel, DecoderModel]:
    """Policy and start, for tests that change no weights."""
    return load_model(random_model_folder), another(random_model_folder)


def another(folder: Path) -> DecoderModel:
    """Another model than the policy, or every KL would be 0."""
    model = load_model(folder)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def rollouts_of(model: DecoderModel, direction: str, inputs: Path, config: TrainConfig) -> Rollouts:
    pool = (
        ["a red circle", "two blue square and a red circle", "a green square"]
        if direction == "generation"
        else [str(path) for path in sorted((inputs / "pictures").glob("*.png"))[:3]]
    )
    return sample_rollouts(model, direction, pool, config.candidates, config.sampling, seed=2)


def selection_of(rollouts: Rollouts, invalid: tuple[int, ...] = (1, 6)) -> Selection:
    reward = torch.rand(len(rollouts), generator=torch.Generator().manual_seed(3))
    reward[list(invalid)] = torch.nan
    return select(reward, rollouts.group)


def gradient_of(
    policy: DecoderModel,
    start: DecoderModel,
    rollouts: Rollouts,
    chosen: Selection,
    config: TrainConfig,
) -> tuple[list[torch.Tensor], Sums]:
    policy.zero_grad(set_to_none=True)
    condition = read_conditions(policy, rollouts.direction, rollouts.inputs).values
    sums = add_gradient(policy, start, rollouts, chosen, condition, config)
    return [p.grad.clone() for p in policy.trainable_parameters() if p.grad is not None], sums


@pytest.mark.parametrize("direction", ["understanding", "generation"])
@pytest.mark.parametrize(
    "objective", ["grpo", "simpo", "dpo", "expert", "grpo objective.kl_estimator=k3"]
)
def test_batches_do_not_change_the_gradient(
    policy: DecoderModel,
    start: DecoderModel,
    inputs_folder: Path,
    make_config: Callable[..., TrainConfig],
    objective: str,
    direction: str,
) -> None:
    """One forward for all, against blocks of a group or, at the smallest, one candidate."""
    changes = f"objective.name={objective}".split()
    whole = make_config(*changes, "optimizer.tokens_per_batch=100000")
    small = make_config(*changes, "optimizer.tokens_per_batch=30")
    rollouts = rollouts_of(policy, direction, inputs_folder, whole)
    chosen = selection_of(rollouts)
    assert_cut_is_free(policy, start, rollouts, chosen, whole, small)


def assert_cut_is_free(
    policy: DecoderModel,
    start: DecoderModel,
    rollouts: Rollouts,
    chosen: Selection,
    whole: TrainConfig,
    small: TrainConfig,
) -> None:
    one, sums = gradient_of(policy, start, rollouts, chosen, whole)
    cut, cut_sums = gradient_of(policy, start, rollouts, chosen, small)
    assert len(cut_sums.old) > len(sums.old) == 1
    assert max(float(gradient.abs().max()) for gradient in one) > 1e-4
    for expected, got in zip(one, cut, strict=True):
        torch.testing.assert_close(got, expected, **TOLERANCES["gradient", "cpu", torch.float32])
    assert cut_sums.kl == pytest.approx(sums.kl, rel=1e-4)
    assert cut_sums.loss == pytest.approx(sums.loss, rel=1e-4, abs=1e-6)
    assert (cut_sums.tokens, cut_sums.sequences) == (sums.tokens, sums.sequences)


def of_many_lengths(rollouts: Rollouts) -> Rollouts:
    """The same captions, cut: a random model ends few by itself."""
    whole = rollouts.cu_seqlens.diff()
    length = whole.minimum(torch.arange(len(rollouts)) % 5 + 2)
    kept = torch.cat([torch.arange(n) < m for n, m in zip(whole.tolist(), length, strict=True)])
    return replace(
        rollouts,
        tokens=rollouts.tokens[kept],
        logprob=rollouts.logprob[kept],
        cu_seqlens=torch.cat([torch.zeros(1, dtype=torch.int64), length.cumsum(0)]),
    )


@pytest.mark.parametrize("loss_type", [x for x in LOSS_TYPES if x != "exo_pair"])
def test_batches_change_no_preference_loss(
    shared: tuple[DecoderModel, DecoderModel],
    inputs_folder: Path,
    make_config: Callable[..., TrainConfig],
    loss_type: str,
) -> None:
    """Nor those that look at the batch's mean length or sort its pairs: captions of any length."""
    for objective in ("simpo", "dpo"):  # without and with the start model as the reference
        changes = f"objective.name={objective}", f"objective.loss_type={loss_type}"
        whole = make_config(*changes, "optimizer.tokens_per_batch=100000")
        small = make_config(*changes, "optimizer.tokens_per_batch=30")
        rollouts = of_many_lengths(rollouts_of(shared[0], "understanding", inputs_folder, whole))
        chosen = selection_of(rollouts)
        assert rollouts.cu_seqlens.diff()[chosen.best].unique().numel() > 1
        assert_cut_is_free(*shared, rollouts, chosen, whole, small)


@pytest.mark.parametrize("direction", ["understanding", "generation"])
@pytest.mark.parametrize("objective", ["grpo", "simpo", "dpo", "expert"])
def test_a_step_prefers_the_better_candidates(
    policy: DecoderModel,
    inputs_folder: Path,
    make_config: Callable[..., TrainConfig],
    objective: str,
    direction: str,
) -> None:
    """Down the gradient the best of each group gains on the worst, or, for expert, just gains."""
    config = make_config(f"objective.name={objective}", "objective.kl=0.0")
    rollouts = rollouts_of(policy, direction, inputs_folder, config)
    chosen = selection_of(rollouts)
    gradient, _ = gradient_of(policy, policy.frozen_copy(), rollouts, chosen, config)
    before = mean_logprob(policy, rollouts)
    moved = [p for p in policy.trainable_parameters() if p.grad is not None]
    length = sum(float(g.square().sum()) for g in gradient) ** 0.5
    with torch.no_grad():
        for parameter, towards in zip(moved, gradient, strict=True):
            parameter -= 0.05 / length * towards
    gain = mean_logprob(policy, rollouts) - before
    if objective == "expert":
        assert gain[chosen.best].mean() > 0.005
    else:
        assert gain[chosen.best].mean() > gain[chosen.worst].mean() + 0.005


@torch.no_grad()
def mean_logprob(model: DecoderModel, rollouts: Rollouts) -> torch.Tensor:
    condition = read_conditions(model, rollouts.direction, rollouts.inputs).values
    hidden = model(rollouts.direction, condition, rollouts.targets(), rollouts.group)
    return linear_sequence_logprob(
        hidden.hidden, hidden.weight, hidden.target, hidden.cu_seqlens, hidden.bias
    )


def test_candidates_left_out_leave_no_gradient(
    policy: DecoderModel,
    start: DecoderModel,
    inputs_folder: Path,
    make_config: Callable[..., TrainConfig],
) -> None:
    """What an invalid candidate says must not matter, not even to the KL term."""
    config = make_config()
    rollouts = rollouts_of(policy, "generation", inputs_folder, config)
    chosen = selection_of(rollouts)
    before, _ = gradient_of(policy, start, rollouts, chosen, config)
    for row in (1, 6):
        rollouts.pictures()[row] = (rollouts.pictures()[row] + 7) % policy.image_vocab_size
    after, sums = gradient_of(policy, start, rollouts, chosen, config)
    assert sums.sequences == 10
    for expected, got in zip(before, after, strict=True):
        assert torch.equal(got, expected)


RATIO_ONE = {
    "plain": ("understanding", "generation"),
    "sampling.temperature=0.7": ("understanding", "generation"),
    "sampling.guidance=3.0 sampling.policy=cfg": ("generation",),
    "sampling.guidance=3.0 sampling.policy=cfg sampling.temperature=1.5": ("generation",),
}


@pytest.mark.parametrize("changes", RATIO_ONE)
def test_ratio_of_fresh_samples_is_one(
    policy: DecoderModel,
    start: DecoderModel,
    inputs_folder: Path,
    make_config: Callable[..., TrainConfig],
    changes: str,
) -> None:
    """The log-probability that is trained is the one the token was drawn with."""
    config = make_config(*(changes.split() if "=" in changes else ()))
    for direction in RATIO_ONE[changes]:
        rollouts = rollouts_of(policy, direction, inputs_folder, config)
        chosen = selection_of(rollouts, invalid=())
        _, sums = gradient_of(policy, start, rollouts, chosen, config)
        trained = torch.cat(sums.old)
        torch.testing.assert_close(
            trained, rollouts.logprob, **TOLERANCES["ratio", "cpu", torch.float32]
        )


def test_conditional_policy_under_guidance_is_another_one(
    policy: DecoderModel,
    start: DecoderModel,
    inputs_folder: Path,
    make_config: Callable[..., TrainConfig],
) -> None:
    """`policy: cond` trains what was not sampled from; the log says by how much."""
    config = make_config("sampling.guidance=3.0", "sampling.policy=cond")
    rollouts = rollouts_of(policy, "generation", inputs_folder, config)
    _, sums = gradient_of(policy, start, rollouts, selection_of(rollouts, ()), config)
    assert sums.log("generation")["sampler_gap/generation"] > 1e-3


def test_later_steps_use_the_first_steps_log_probabilities(
    policy: DecoderModel,
    start: DecoderModel,
    inputs_folder: Path,
    make_config: Callable[..., TrainConfig],
) -> None:
    """After a step that raises the good candidates the clipped objective has no gradient left."""
    config = make_config("objective.kl=0.0", "objective.clip=0.01")
    rollouts = rollouts_of(policy, "generation", inputs_folder, config)
    chosen = selection_of(rollouts)
    gradient, first = gradient_of(policy, start, rollouts, chosen, config)
    moved = [p for p in policy.trainable_parameters() if p.grad is not None]
    with torch.no_grad():
        for parameter, direction in zip(moved, gradient, strict=True):
            parameter -= 2.0 * direction
    policy.zero_grad(set_to_none=True)
    condition = list(rollouts.inputs)
    add_gradient(policy, start, rollouts, chosen, condition, config, first)
    left = sum(float(p.grad.square().sum()) for p in moved) ** 0.5
    whole = sum(float(g.square().sum()) for g in gradient) ** 0.5
    assert left < 0.5 * whole


def test_blocks_are_bounded_and_whole(make_config: Callable[..., TrainConfig]) -> None:
    """Every trained candidate once, in order; within the limit wherever one fits at all."""
    chosen = select(torch.rand(40, generator=torch.Generator().manual_seed(1)), 8)
    cost = torch.arange(40) % 13 + 10
    for objective in ("grpo", "simpo", "expert"):
        trained = trained_candidates(objective, chosen, 8)

        def padded(block: Block) -> int:
            return block.index.numel() * int(cost[block.index].max())

        longest = int(cost[trained.index].max())
        smallest = 2 * longest if objective == "simpo" else longest
        for limit in (25, 70, 200, 10_000):
            config = make_config(f"objective.name={objective}")
            parts = list(blocks(trained, padded, config, limit))
            seen = torch.cat([part.index.flatten() for part in parts])
            assert torch.equal(seen, trained.index.flatten())
            for part in parts:
                assert padded(part) <= max(limit, smallest)
                if objective == "simpo":
                    assert part.index.shape[1] == 2
            for one, other in itertools.pairwise(parts):  # no cut that none asked for
                both = one.index.numel() + other.index[:1].numel()
                assert both * longest > limit or objective == "simpo"


@pytest.mark.parametrize(
    ("direction", "changes"),
    [
        ("understanding", ()),
        ("generation", ()),
        ("generation", ("sampling.guidance=3", "sampling.policy=cfg")),
    ],
)
@pytest.mark.parametrize("limit", [60, 150, 400])
def test_a_block_is_charged_what_the_model_reads(
    shared: tuple[DecoderModel, DecoderModel],
    inputs_folder: Path,
    make_config: Callable[..., TrainConfig],
    direction: str,
    changes: tuple[str, ...],
    limit: int,
) -> None:
    """The tokens that enter the language model, the shared prefix once, all branches together."""
    config = make_config("candidates=8", f"optimizer.tokens_per_batch={limit}", *changes)
    rollouts = rollouts_of(shared[0], direction, inputs_folder, config)
    read: list[int] = []
    steps: list[int] = []
    policy = shared[0]
    handles = [
        policy.core.model.language_model.register_forward_pre_hook(
            lambda _, args, kwargs: read.append(kwargs["inputs_embeds"].shape[:2].numel()),
            with_kwargs=True,
        ),
        policy.register_forward_pre_hook(lambda *_: steps.append(len(read))),
    ]
    sums = gradient_of(*shared, rollouts, selection_of(rollouts, invalid=()), config)[1]
    for handle in handles:
        handle.remove()
    passes = [sum(read[i:j]) for i, j in zip(steps, [*steps[1:], len(read)], strict=True)]
    lengths, group = rollouts.cu_seqlens.diff().tolist(), rollouts.group
    guidance = 3.0 if changes else 1.0
    seen = direction == "understanding"
    whole = policy.tokens_read(
        direction, 3 if seen else list(rollouts.inputs), lengths, group, guidance
    )
    assert max(passes) <= limit
    assert len(passes) == len(sums.old)
    if whole <= limit:
        assert passes == [whole]
    if limit < 400:  # and of what would fit, nothing is left for later
        assert len(passes) <= -(-2 * sum(passes) // limit)


def test_a_prefix_that_is_shared_is_charged_once(shared: tuple[DecoderModel, DecoderModel]) -> None:
    policy = shared[0]
    question, width = len(policy.prompts.question_ids), 32
    once = policy.tokens_read("understanding", 2, [5] * 16, 8)
    assert once == 2 * (question + 8 * 4)
    assert policy.tokens_read("understanding", 16, [5] * 16) == 16 * (question + 4)
    # DecoderModel-Pro's: of 16,384 tokens, 2,514 were read in a block of captions.
    assert tokens_read([600], [32] * 8, 8, 2048) == 600 + 8 * 31
    assert tokens_read([20], [576] * 8, 8, 2048) == 8 * (20 + 575)
    # The mask of a row longer than 12 widths would be more than what a layer keeps.
    assert tokens_read([10 * width], [9] * 8, 8, width) == 10 * width + 64
    assert tokens_read([11 * width], [9] * 8, 8, width) == 8 * (11 * width + 8)
