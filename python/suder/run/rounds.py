"""The first three phases of a round, each a file: what is on disk is not done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from suder import ranks
from suder.inputs.data import Inputs, turn_indices
from suder.method.combine import YES, combine
from suder.method.directions import active, held
from suder.method.entropy import entropy_reward
from suder.method.external import ExternalReward
from suder.method.judge import SelfJudge
from suder.method.rewards import DualReward
from suder.method.rollouts import (
    Conditions,
    Rollouts,
    check_reward_of,
    external_of,
    judged_of,
    load_rollouts,
    read_conditions,
    reward_of,
    sample_rollouts,
    save_rollouts,
)
from suder.method.selection import Selection, select
from suder.models.base import Condition, Direction, UnifiedModel
from suder.rollouts.offline import Offline
from suder.run.folder import PHASES
from suder.settings.config import TrainConfig
from suder.settings.reward import Part, base_of
from suder.storage.files import DamagedFile, read_tensors, seed_of, write_tensors

T = TypeVar("T")
Tensors = dict[str, torch.Tensor]
Again = Callable[[Direction, int, Sequence[str]], list[str]]


@dataclass(frozen=True)
class Sampled:
    """What a round has drawn.

    Attributes:
        rollouts: of each direction that it trains; held: of the one that it holds to the start.
        conditions: by direction, what the model takes of their inputs.
    """

    rollouts: list[Rollouts]
    held: Rollouts | None
    conditions: dict[str, Condition]

    def anchor(self) -> Anchor | None:
        if self.held is None:
            return None
        return Anchor(self.held, self.conditions[self.held.direction])


@dataclass(frozen=True)
class Anchor:
    """Samples of a direction that a round holds to the start."""

    rollouts: Rollouts
    condition: Condition


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


def phase(path: Path, make: Callable[[], T], save: Callable[[Path, T], Any],
          load: Callable[[Path], T]) -> T:  # fmt: skip
    """What `make` returns, from the file if an earlier life of this run got as far.

    The first of several processes reads and writes; `make` is called in all of them.
    """
    there = ranks.from_first(lambda: load(path) if path.exists() else None)
    if there is not None:
        return there
    value = make()
    with ranks.each():
        if ranks.first():
            save(path, value)
    return value


def drop_damaged(folder: Path) -> list[str]:
    """Deletes phases that cannot be read, which are then made again; says what was wrong."""
    for name in PHASES:
        path = folder / f"{name}.safetensors"
        try:
            if path.exists():
                read_tensors(path)
        except DamagedFile as error:
            _drop_from(folder, name)
            return [f"{error}; it is made again, and what follows from it"]
    return []


def _drop_from(folder: Path, first: str) -> None:
    """Deletes a phase and those that follow from it; the last goes first."""
    for name in reversed(PHASES[PHASES.index(first) :]):
        (folder / f"{name}.safetensors").unlink(missing_ok=True)


@torch.no_grad()
def sample_phase(
    folder: Path,
    policy: UnifiedModel,
    inputs: Inputs,
    config: TrainConfig,
    index: int,
    at_once: int,
    again: Again | None = None,
) -> Sampled:
    """Candidates for the round's inputs in the directions that are trained in it, one sample for
    each input of a direction that is held, and what the model takes of those inputs: pictures are
    read once a round.

    Candidates on disk of a picture that is gone by now, or another, can be neither scored nor
    learnt from. Then the round begins again without it.

    Args:
        at_once: candidates, at most, of those that are drawn.
        again: what a direction's round takes up besides its turn of the inputs, given those.
    """
    if known := known_candidates(folder, policy, inputs, config, index):
        return known
    rounds = []
    conditions: dict[str, Condition] = {}
    for direction in active(config, index):
        found = _round_inputs(policy, direction, inputs, config, index, again)
        conditions[direction] = found.values
        rounds.append(
            sample_rollouts(
                policy,
                direction,
                found.inputs,
                config.candidates,
                config.sampling,
                sampling_seed(config, index, direction),
                found.values,
                found.lost,
                at_once,
            )
        )
    if (kept := held_candidates(policy, inputs, config, index, at_once)) is not None:
        rounds.append(kept.rollouts)
        conditions[kept.rollouts.direction] = kept.condition
    keep_candidates(folder, rounds)
    return sampled(rounds, conditions, config, index)


def held_candidates(
    policy: UnifiedModel, inputs: Inputs, config: TrainConfig, index: int, at_once: int
) -> Anchor | None:
    """One sample for each of a round's inputs of the direction that is held to the start."""
    direction = held(config, index)
    if direction is None:
        return None
    found = _round_inputs(policy, direction, inputs, config, index)
    seed = seed_of(config.seed, index, "anchor", direction)
    drawn = sample_rollouts(
        policy, direction, found.inputs, 1, config.sampling, seed, found.values, found.lost, at_once
    )
    return Anchor(drawn, found.values)


def sampled(
    rounds: list[Rollouts], conditions: dict[str, Condition], config: TrainConfig, index: int
) -> Sampled:
    trained = active(config, index)
    resting = [one for one in rounds if one.direction not in trained]
    drawn = [one for one in rounds if one.direction in trained]
    return Sampled(drawn, resting[0] if resting else None, conditions)


def known_candidates(
    folder: Path, policy: UnifiedModel, inputs: Inputs, config: TrainConfig, index: int
) -> Sampled | None:
    """What an earlier life of the run has kept of the round, if its pictures are as they were."""
    path = folder / "sample.safetensors"
    known = ranks.from_first(lambda: load_rollouts(path) if path.exists() else None)
    if known is None:
        return None
    again: dict[str, Conditions] = {
        one.direction: read_conditions(policy, one.direction, one.inputs, inputs.digests)
        for one in known
    }
    if not any(one.lost for one in again.values()):
        return sampled(known, {name: one.values for name, one in again.items()}, config, index)
    with ranks.each():
        if ranks.first():
            _drop_from(folder, "sample")
    return None


def keep_candidates(folder: Path, rounds: list[Rollouts]) -> None:
    with ranks.each():
        if ranks.first():
            save_rollouts(folder / "sample.safetensors", rounds)


def sampling_seed(config: TrainConfig, index: int, direction: Direction) -> int:
    """Which a round's candidates are drawn by."""
    return seed_of(config.seed, index, "sample", direction)


def turn_of(config: TrainConfig, index: int) -> int:
    """How often a direction had its turn before round `index`."""
    return (index - 1) // 2 if config.directions == "alternating" else index - 1


def _round_inputs(
    policy: UnifiedModel,
    direction: Direction,
    inputs: Inputs,
    config: TrainConfig,
    index: int,
    again: Again | None = None,
) -> Conditions:
    """The round's turn of the inputs, or of what else can be read if all of those are lost.

    Paired inputs have their turn together: pictures, and their own prompts.
    """
    pool = inputs.images if direction == "understanding" else inputs.prompts
    turn = turn_of(config, index)
    key = "pairs" if config.data.pairing else direction
    order = turn_indices(len(pool), config.inputs_per_round, turn, config.seed, key)
    asked = [pool[i] for i in order]
    asked += again(direction, index, asked) if again else []
    found = read_conditions(policy, direction, asked, inputs.digests)
    if found.inputs:
        return found
    others = [one for one in dict.fromkeys(pool) if one not in set(asked)]
    instead = read_conditions(policy, direction, others, inputs.digests, most=len(asked))
    return instead._replace(lost=found.lost)


@torch.no_grad()
def score_phase(
    folder: Path,
    scorer: DualReward,
    policy: UnifiedModel,
    rounds: list[Rollouts],
    conditions: dict[str, Condition],
    config: TrainConfig,
    index: int,
    judge: SelfJudge | None = None,
    external: ExternalReward | None = None,
    digests: Mapping[str, str] | None = None,
    source: Offline | None = None,
    start: UnifiedModel | None = None,
) -> Tensors:
    """Each direction's rewards, float32 `[B]`, and as "direction/part" what they are made of,
    where that is more than the dual reward.

    Args:
        judge, external: where the settings name them.
        digests: what is known of the pictures' contents.
        source: the files that the candidates are taken from, rewards included unless
            `reward.rescore`.
        start: whose entropy is an anchor, where the settings say so.

    Raises:
        NotFinite: a direction has none that is finite, though there was something to score.
        ExternalError: the external reward failed.
    """

    def scored(one: Rollouts) -> dict[Part, torch.Tensor]:
        parts: dict[Part, torch.Tensor] = {}
        condition = conditions[one.direction]
        if base_of(config.reward) == "dual":
            if config.reward.scorer == "random":
                seed = seed_of(config.seed, index, "score", one.direction)
                parts["dual"] = random_reward(one, policy, seed)
            else:
                parts["dual"] = reward_of(one, scorer, policy, condition)
        if judge is not None:
            parts["judge"] = judged_of(one, judge, condition)
        if external is not None:
            parts["external"] = external_of(
                one, external, str(config.reward.external), policy, digests
            )
        if config.objective.entropy_anchor and start is not None:
            parts["entropy"] = entropy_reward(
                policy, start, one, condition, config, scorer.tokens_per_batch
            )
        return parts

    def make() -> Tensors:
        rewards: Tensors = {}
        for one in rounds:
            numbers = _taken_numbers(source, one, config, index) if source else []
            if source and not config.reward.rescore:
                rewards[one.direction] = source.reward(one.direction, numbers)
            else:
                parts = scored(one)
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
                check_reward_of(one, scorer.model, part)
    return rewards


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


def lost_rows(index: int, rollouts: Rollouts) -> list[dict[str, Any]]:
    """The inputs that could not be read."""
    about = {"round": index, "direction": rollouts.direction}
    return [about | {"input": path, "why": why} for path, why in rollouts.lost]


def dropped_rows(index: int, scored: Scored) -> list[dict[str, Any]]:
    """What this direction left out, named: inputs that could not be read, candidates unscored."""
    rollouts = scored.rollouts
    about = {"round": index, "direction": rollouts.direction}
    rows = lost_rows(index, rollouts)
    judged = scored.parts.get("judge")
    for candidate in (~scored.selection.valid).nonzero().flatten().tolist():
        row, place = divmod(candidate, rollouts.group)
        why = "empty caption, one too long to be scored, or a reward that is not finite"
        if scored.reward[candidate].isfinite():
            length = int(rollouts.cu_seqlens.diff()[candidate])
            why = f"caption cut off after {length} tokens"
        elif judged is not None and _denied(scored.parts, candidate):
            why = f"the model itself denies that it fits, judge {float(judged[candidate]):.3f}"
        rows.append(about | {"input": rollouts.inputs[row], "candidate": place, "why": why})
    return rows


def _denied(parts: Tensors, candidate: int) -> bool:
    """Whether the judge's no is all that a candidate without a reward has against it."""
    there = all(part[candidate].isfinite() for part in parts.values())
    return there and bool(parts["judge"][candidate] < YES)


def all_cut(scored: Scored) -> str:
    """A sentence for people whose model had nothing left to learn from, and why, or ""."""
    rollouts = scored.rollouts
    if scored.selection.valid.any():
        return ""
    denied = "judge" in scored.parts and all(
        _denied(scored.parts, candidate) for candidate in range(len(rollouts))
    )
    if denied and not scored.reward.isfinite().any():
        return (
            f"the model itself denies that any of {len(rollouts)} candidates "
            f"({rollouts.direction}) fits, and none is learnt from (reward.judge gate)"
        )
    if rollouts.finished.any():
        return ""
    if not scored.reward.isfinite().any():  # there was nothing to learn from, cut or not
        return ""
    longest = int(rollouts.cu_seqlens.diff().max())
    return (
        f"all {len(rollouts)} captions were cut off after {longest} tokens, and none is learnt "
        "from: raise sampling.max_new_tokens, or set reward.cut_captions=keep"
    )


def round_numbers(scored: Scored) -> dict[str, float]:
    """What a direction's samples and rewards say, for the log."""
    rollouts, selection = scored.rollouts, scored.selection
    reward = scored.reward.masked_fill(~selection.valid, torch.nan).double()
    reward = reward.view(-1, rollouts.group)
    spread = [one[one.isfinite()].std() for one in reward if one.isfinite().sum() > 1]
    finite = scored.reward[selection.valid]
    numbers = {
        "reward": float(finite.double().mean()) if finite.numel() else float("nan"),
        "reward_spread": float(torch.stack(spread).mean()) if spread else float("nan"),
        "pairs": float(selection.paired.sum()),
        "dropped": float((~selection.valid).sum() + len(rollouts.lost)),
        "length": float(rollouts.cu_seqlens.diff().double().mean()),
        "unfinished": float((~rollouts.finished).sum()),
    }
    for name, part in scored.parts.items():
        there = part[part.isfinite()].double()
        numbers[f"reward_{name}"] = float(there.mean()) if there.numel() else float("nan")
    return {f"{name}/{rollouts.direction}": value for name, value in numbers.items()}


def _save(path: Path, tensors: Tensors) -> None:
    write_tensors(path, tensors, {})


def _load(path: Path) -> Tensors:
    return read_tensors(path)[0]
