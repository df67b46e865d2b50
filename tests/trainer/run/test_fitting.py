"""Texts beyond a model's positions end no run; weights that are of no use end in the guard."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import suder.run.rounds
from suder.guard.watch import DIRECTIONS
from suder.inputs.files import DataError
from suder.models.base import NotFinite
from suder.run.fitting import fitting
from suder.run.learner import Learner
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.storage.files import read_jsonl

Make = Callable[..., TrainConfig]
LONG = "red " * 300


def with_prompts(make_config: Make, folder: Path, prompts: list[str], *changes: str) -> TrainConfig:
    (folder / "prompts.txt").write_text("\n".join(prompts))
    return make_config(f"data.prompts={folder / 'prompts.txt'}", *changes)


def test_prompts_that_are_too_long_are_dropped_at_the_start(
    make_config: Make, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = [f"a {word} circle" for word in ("red", "blue", "green")]
    changes = ("rounds=1", f"model={model_folder}", "guard.enabled=false")
    config = with_prompts(make_config, tmp_path, [*prompts, LONG], *changes)
    trainer = Trainer(config)
    assert LONG.strip() not in trainer.inputs.prompts + trainer.inputs.watched_prompts
    summary = trainer.run()
    assert summary["inputs_dropped"] == 1
    (row,) = read_jsonl(Path(config.output) / "data" / "dropped.jsonl")
    assert row["input"].startswith("red red ")
    assert "too long: " in row["why"]
    positions = trainer.learner.policy.positions
    assert f"more than the model's {positions} positions" in row["why"]
    assert "1 input dropped" in capsys.readouterr().err
    assert Trainer.resume(config.output, quiet=True).inputs == trainer.inputs.load(trainer.folder)


def test_where_all_that_are_watched_are_too_long(make_config: Make, tmp_path: Path) -> None:
    prompts = [f"a red circle and a {word}" for word in ("red", "blue", "green")]
    config = with_prompts(make_config, tmp_path, prompts, "rounds=1")
    trainer = Trainer(config, quiet=True)
    watched = replace(trainer.inputs, watched_prompts=(LONG,))
    found = fitting(watched, config.sampling, trainer.learner.policy)
    assert found.watched_prompts == found.prompts == tuple(prompts)
    assert len(found.dropped) == 1


@pytest.mark.parametrize(
    ("prompts", "change", "message"),
    [
        ([LONG], "rounds=1", r"data.prompts: none is short enough; .* more than the model's"),
        (["a red circle"], "sampling.max_new_tokens=250", r"max_new_tokens: 250 .* at most \d+$"),
    ],
)
def test_a_start_that_cannot_fit_leaves_no_folder(
    make_config: Make, tmp_path: Path, prompts: list[str], change: str, message: str
) -> None:
    config = with_prompts(make_config, tmp_path, prompts, change)
    with pytest.raises(DataError, match=message):
        Trainer(config, quiet=True)
    assert not Path(config.output).exists()


@pytest.mark.parametrize(
    ("model_folder", "part", "action"),
    [
        *product(["janus"], [*DIRECTIONS, "generation_aligner"], ["rollback", "stop", "watch"]),
        *product(["emu3", "liquid"], DIRECTIONS, ["rollback"]),
    ],
    indirect=["model_folder"],
)
def test_weights_that_overflow_reach_the_guard(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, model_folder: Path, part: Any, action: str
) -> None:
    """In the middle of a run, whatever part of a round meets them first."""
    config = make_config(
        "rounds=4", f"guard.action={action}", "guard.max_rollbacks=1", "guard.every=9",
        "guard.false_keep=0.99", f"model={model_folder}",
    )  # fmt: skip
    honest = Learner.optimise

    def overflowing(self: Learner, *given: Any) -> Any:
        numbers = honest(self, *given)
        if self.updater.rounds == 2 and self.updater.lr_scale == 1:
            if part in DIRECTIONS:
                weight, _ = self.policy.parts.last_layer(part)
            else:
                weight = next(w for name, w in self.policy.named_parameters() if part in name)
            with torch.no_grad():
                weight.view(-1)[3] = math.inf
        return numbers

    monkeypatch.setattr(Learner, "optimise", overflowing)
    trainer = Trainer(config, quiet=True)
    if action == "watch":
        with pytest.raises(NotFinite, match=r"not finite|none of 12 is finite"):
            trainer.run()
        return
    summary = trainer.run()
    guard = summary["guard"]
    assert guard["rollbacks"] == (action == "rollback")
    assert summary["rounds"] == (4 if action == "rollback" else 3)
    assert bool(summary["stopped"]) is (action == "stop")
    rows = read_jsonl(Path(config.output) / "metrics.jsonl")
    assert [row["round"] for row in rows] == list(range(summary["rounds"] + 1))
    assert "reward/generation" not in rows[3]
    if action == "rollback":
        assert math.isfinite(rows[4]["reward/generation"])
        assert all(torch.isfinite(p).all() for p in trainer.learner.policy.trainable_parameters())


def test_rewards_of_a_live_scorer_that_overflows_reach_the_guard(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though what is sampled is finite. Without a guard the error names model and input."""

    def nothing(rollouts: Any, *_: Any) -> torch.Tensor:
        calls.append(rollouts.direction)
        reward = honest(rollouts, *_)
        return reward.fill_(math.nan) if len(calls) in (3, 4) else reward

    honest = suder.run.rounds.reward_of
    monkeypatch.setattr(suder.run.rounds, "reward_of", nothing)
    calls: list[str] = []
    config = make_config("rounds=4", "guard.action=rollback")
    summary = Trainer(config, quiet=True).run()
    assert (summary["rounds"], summary["guard"]["rollbacks"]) == (4, 1)
    calls.clear()
    config = make_config("rounds=4", "guard.enabled=false", output="unguarded")
    with pytest.raises(NotFinite, match=rf"rewards .*: none of 12 is finite, by {config.model} "):
        Trainer(config, quiet=True).run()
    with pytest.raises(NotFinite):  # and so it is at every resume, which draws nothing anew
        Trainer.resume(config.output, quiet=True).run()
