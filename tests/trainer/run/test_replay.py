"""Inputs that taught nothing come back later, and the pool is part of the state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import suder.run.rounds
from suder.method.rollouts import load_rollouts
from suder.run.replay import HELD, REST, Replay
from suder.run.states import States
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.config_file import ConfigError
from suder.storage.checkpoint import load_state
from suder.storage.files import read_jsonl

Make = Callable[..., TrainConfig]


def scored(inputs: list[str], paired: list[bool], lost: tuple[Any, ...] = ()) -> Any:
    """One direction of a round, of which the pool looks at nothing else."""
    return SimpleNamespace(
        rollouts=SimpleNamespace(direction="generation", inputs=inputs, lost=lost),
        selection=SimpleNamespace(paired=torch.tensor(paired)),
    )


@pytest.fixture
def replay(make_config: Make) -> Replay:
    return Replay(make_config("data.replay=2"))


def test_who_comes_back_and_when(replay: Replay) -> None:
    replay.learn(1, [scored(["a", "b", "c"], [False, True, False])])
    assert replay.again("generation", REST, []) == []
    assert replay.again("generation", 1 + REST, []) == ["a", "c"]
    assert replay.again("understanding", 1 + REST, []) == []
    assert replay.again("generation", 1 + REST, ["a", "d"]) == ["c"]  # `a` has its turn
    replay.learn(2, [scored(["d", "d", "e", "e"], [False, True, False, False])])
    assert replay.again("generation", 9, []) == ["a", "c"]  # two at most, the oldest
    numbers = replay.learn(9, [scored(["a", "c"], [False, True])])
    assert numbers == {"replayed/generation": 2.0, "replay_pool/generation": 2.0}
    assert replay.again("generation", 99, []) == ["e", "a"]  # `a` was of no use once more
    replay.learn(10, [scored(["x"], [True], lost=(("e", "gone"),))])
    assert replay.again("generation", 99, []) == ["a"]


def test_the_pool_is_bounded_and_goes_with_the_state(replay: Replay, make_config: Make) -> None:
    names = [str(i) for i in range(3 * HELD)]
    for index, name in enumerate(names, 1):
        replay.learn(index, [scored([name], [False])])
    kept = names[-2 * HELD :]
    assert list(replay.pool["generation"]) == kept
    other = Replay(make_config("data.replay=2"))
    other.load_state(replay.state())
    assert other.pool == replay.pool
    assert Replay(make_config()).state() == {}


def flat(rollouts: Any, *_: Any) -> torch.Tensor:
    """Rewards by which inputs of an odd number teach nothing."""
    reward = torch.rand(len(rollouts), generator=torch.Generator().manual_seed(len(rollouts)))
    for row, name in enumerate(rollouts.inputs):
        if sum(map(ord, Path(name).name)) % 2:
            here = slice(row * rollouts.group, (row + 1) * rollouts.group)
            reward[here] = 0.5 if row % 2 else torch.nan
    return reward


def test_a_run_takes_them_up_and_resumes_to_the_same_bits(
    make_config: Make, lively_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suder.run.rounds, "reward_of", flat)
    changes = (
        "rounds=8", "data.replay=2", "checkpoint.state_every=3", "guard.enabled=false",
        f"model={lively_model_folder}",
    )  # fmt: skip
    whole = make_config(*changes, output="whole")
    Trainer(whole, quiet=True).run()
    seen: dict[str, list[list[str]]] = {"understanding": [], "generation": []}
    rows = read_jsonl(Path(whole.output) / "metrics.jsonl")[-8:]
    for index in range(1, 9):
        file = Path(whole.output) / "rounds" / f"{index:06d}" / "sample.safetensors"
        for one in load_rollouts(file):
            seen[one.direction].append(list(one.inputs))
    for direction, rounds in seen.items():
        assert [len(one) for one in rounds[:REST]] == [3] * REST
        for index, names in enumerate(rounds[REST:], REST + 1):
            assert 3 <= len(names) <= 5
            assert len(set(names)) == len(names)
            for name in names[3:]:  # was of no use, and not in the last rounds
                assert sum(map(ord, Path(name).name)) % 2
                assert any(name in one for one in rounds[: index - REST])
                assert not any(name in one for one in rounds[index - REST : index - 1])
        assert sum(row[f"replayed/{direction}"] for row in rows) >= 2
        assert any(len(names) > 3 for names in rounds)
    part = make_config(*changes, output="part")
    trainer = Trainer(part, quiet=True)
    write = States.write

    def dying(self: States, index: int, looked: bool) -> None:
        write(self, index, looked)
        if index == 7:  # the state is of round 6
            raise KeyboardInterrupt

    trainer.states.write = dying.__get__(trainer.states)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    found, _ = load_state(Path(part.output), trainer.origin["run"])
    assert found is not None
    assert found[1]["replay"]["generation"]
    Trainer.resume(part.output, quiet=True).run()
    results = [
        (Path(run) / "model" / "model.safetensors").read_bytes()
        for run in (whole.output, part.output)
    ]
    assert results[0] == results[1]


def test_none_by_default(make_config: Make) -> None:
    config = make_config("rounds=1", "guard.enabled=false")
    Trainer(config, quiet=True).run()
    assert not any(
        "replay" in name for name in read_jsonl(Path(config.output) / "metrics.jsonl")[-1]
    )
    with pytest.raises(ConfigError, match=r"data\.replay chooses what a round samples"):
        make_config("data.replay=1", "data.rollouts=x")
