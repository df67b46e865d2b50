"""The second and third phase of a round, each a file: rewards, and what is chosen by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from suder.method.combine import combine
from suder.method.entropy import entropy_reward
from suder.method.external import ExternalReward
from suder.method.judge import SelfJudge
from suder.method.rewards import DualReward
from suder.method.rollouts import Rollouts
from suder.method.scoring import check_reward_of, external_of, judged_of, reward_of
from suder.method.selection import Selection, select
from suder.models.base import Condition, UnifiedModel
from suder.rollouts.offline import Offline
from suder.run.phases import Tensors, phase
from suder.run.sampled import turn_of
from suder.settings.config import TrainConfig
from suder.settings.reward import Part, base_of
from suder.storage.files import read_tensors, seed_of, write_tensors


@dataclass(frozen=True)
class Scored:
    """One direction of a round, ready to learn from.

    Attributes:
        parts: where the reward is made of several, or is another than the dual one, they by name.
    """

    rollouts: Rollouts
    condition: Condition
    reward: torch.Tensor
    selection: Selection
    parts: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class Scorers:
    """What gives the rewards.

    Attributes:
        judge, external: where the settings name them.
        start: whose entropy is an anchor, where the settings say so.
    """

    dual: DualReward
    judge: SelfJudge | None = None
    external: ExternalReward | None = None
    start: UnifiedModel | None = None


@torch.no_grad()
def score_phase(
    folder: Path,
    scorers: Scorers,
    policy: UnifiedModel,
    rounds: list[Rollouts],
    conditions: dict[str, Condition],
    config: TrainConfig,
    index: int,
    digests: Mapping[str, str] | None = None,
    source: Offline | None = None,
) -> Tensors:
    """Each direction's rewards, float32 `[B]`, and as "direction/part" what they are made of,
    where that is more than the dual reward.

    Args:
        digests: what is known of the pictures' contents.
        source: the files that the candidates are taken from, rewards included unless
            `reward.rescore`.

    Raises:
        NotFinite: a direction has none that is finite, though there was something to score.
        ExternalError: the external reward failed.
    """

    def make() -> Tensors:
        rewards: Tensors = {}
        for one in rounds:
            numbers = _taken_numbers(source, one, config, index) if source else []
            if source and not config.reward.rescore:
                rewards[one.direction] = source.reward(one.direction, numbers)
                continue
            condition = conditions[one.direction]
            parts = _parts(one, scorers, policy, condition, config, index, digests)
            if source:  # nothing of a group is made of who only fills it up
                fill = source.fill(one.direction, numbers)
                parts = {name: x.masked_fill(fill, torch.nan) for name, x in parts.items()}
            rewards[one.direction] = combine(
                parts, config.reward, one.group, config.objective.entropy_anchor
            )
            if list(parts) != ["dual"]:
                rewards |= {f"{one.direction}/{name}": part for name, part in parts.items()}
        return rewards

    rewards = phase(folder / "score.safetensors", make, _save, _load)
    if source and not config.reward.rescore:
        return rewards  # not the model's, and no sign of what it is
    for one in rounds:
        alone = base_of(config.reward) == "dual" and f"{one.direction}/dual" not in rewards
        given = [rewards.get(f"{one.direction}/{name}") for name in ("dual", "judge")]
        for part in [rewards[one.direction]] if alone else given:
            if part is not None:  # what comes of weights
                check_reward_of(one, scorers.dual.model, part)
    return rewards


def _parts(
    one: Rollouts,
    scorers: Scorers,
    policy: UnifiedModel,
    condition: Condition,
    config: TrainConfig,
    index: int,
    digests: Mapping[str, str] | None,
) -> dict[Part, torch.Tensor]:
    """What a direction's rewards are made of, each float32 `[B]`."""
    parts: dict[Part, torch.Tensor] = {}
    if base_of(config.reward) == "dual":
        if config.reward.scorer == "random":
            seed = seed_of(config.seed, index, "score", one.direction)
            parts["dual"] = random_reward(one, policy, seed)
        else:
            parts["dual"] = reward_of(one, scorers.dual, policy, condition)
    if scorers.judge is not None:
        parts["judge"] = judged_of(one, scorers.judge, condition)
    if scorers.external is not None:
        name = str(config.reward.external)
        parts["external"] = external_of(one, scorers.external, name, policy, digests)
    if config.objective.entropy_anchor and scorers.start is not None:
        parts["entropy"] = entropy_reward(
            policy, scorers.start, one, condition, config, scorers.dual.tokens_per_batch
        )
    return parts


def parts_of(rewards: Tensors, direction: str) -> Tensors:
    """What a direction's rewards are made of, by name, where `score_phase` says so."""
    begins = f"{direction}/"
    return {key.removeprefix(begins): r for key, r in rewards.items() if key.startswith(begins)}


def _taken_numbers(
    source: Offline, rollouts: Rollouts, config: TrainConfig, index: int
) -> list[int]:
    """Which of the files' groups a round's candidates are."""
    numbers = source.turn(rollouts.direction, config, turn_of(config, index))
    return source.usable(rollouts.direction, numbers, rollouts.inputs)


def select_phase(
    folder: Path, rewards: Tensors, finished: Tensors, config: TrainConfig
) -> dict[str, Selection]:
    """Each direction's advantages, best and worst.

    A caption that was cut off takes no part, as if it had no reward (`reward.cut_captions`). Learnt
    from as the best, it would teach not to end. As the worst, or with an advantage, it would be
    blamed or praised for tokens that are not what is wrong with it; masking such samples is what
    DAPO found to steady training (arXiv 2503.14476, overlong filtering).

    Args:
        finished: bool `[B]` of each direction.
    """

    def make() -> Tensors:
        found = {}
        for direction in finished:
            reward = rewards[direction]
            if config.reward.cut_captions == "drop":
                reward = reward.masked_fill(~finished[direction], torch.nan)
            selection = select(reward, config.candidates, config.objective.normalize)
            found[direction] = asdict(selection)
        return {f"{one}/{key}": value for one in found for key, value in found[one].items()}

    tensors = phase(folder / "select.safetensors", make, _save, _load)
    valid = [tensors[f"{direction}/valid"] for direction in finished]
    gated = config.reward.judge == "gate"  # which the next round's candidates may pass
    if not (config.guard.enabled or gated) and not any(one.any() for one in valid):
        raise ValueError(
            f"{folder}: every one of the round's {sum(map(len, valid))} candidates was dropped: "
            "captions empty or cut off, or no reward is finite; nothing is left to learn from "
            f"{config.model}, and the guard is off"
        )
    return {direction: selection_of(tensors, direction) for direction in finished}


def selection_of(tensors: Tensors, direction: str) -> Selection:
    """From what `select_phase` wrote."""
    return Selection(**{key: tensors[f"{direction}/{key}"] for key in Selection.__annotations__})


def random_reward(rollouts: Rollouts, model: UnifiedModel, seed: int) -> torch.Tensor:
    """The control: uniform numbers that know nothing; empty captions are still no candidates."""
    reward = torch.rand(len(rollouts), generator=torch.Generator().manual_seed(seed))
    if rollouts.direction == "understanding":
        for row, text in enumerate(model.detokenize(rollouts.sequences())):
            if not text.strip():
                reward[row] = torch.nan
    return reward


def _save(path: Path, tensors: Tensors) -> None:
    write_tensors(path, tensors, {})


def _load(path: Path) -> Tensors:
    return read_tensors(path)[0]
