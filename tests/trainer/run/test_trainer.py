"""Whole runs on a random tiny model: what they leave, what they learn, what they refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import suder.run.learner
from suder.guard.rule import Guard
from suder.method.selection import select
from suder.models import load_model
from suder.models.one_vocabulary.taming import FILE as VQ_FILE
from suder.run.rounds import select_phase
from suder.run.trainer import RunError, Trainer
from suder.settings.config import TrainConfig
from suder.storage.files import read_jsonl

Make = Callable[..., TrainConfig]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def rows(run: str) -> list[dict[str, Any]]:
    return read_jsonl(Path(run) / "metrics.jsonl")


def test_what_a_run_leaves(make_config: Make, model_folder: Path) -> None:
    config = make_config(
        "rounds=5", "checkpoint.every=1", "checkpoint.keep=2", "checkpoint.keep_rounds=3",
        f"model={model_folder}", "guard.action=watch",
    )  # fmt: skip
    summary = Trainer(config, quiet=True).run()
    run = Path(config.output)
    assert {path.name for path in run.iterdir()} == {
        ".suder", "best", "checkpoints", "config.yaml", "data", "looks", "metrics.jsonl", "model",
        "rounds", "state", "summary.json", "tensorboard", "versions.json",
    }  # fmt: skip
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["000004", "000005"]
    assert [path.name for path in sorted((run / "rounds").iterdir())] == [
        "000003", "000004", "000005",
    ]  # fmt: skip
    assert {path.name for path in (run / "state").iterdir()} == {
        "000004.safetensors", "000005.safetensors",
    }  # fmt: skip
    assert json.loads((run / "summary.json").read_text()) == summary
    assert [row["round"] for row in rows(config.output)] == [0, 1, 2, 3, 4, 5]
    last = rows(config.output)[5]
    for name in ("reward", "kl", "loss", "grad_norm", "entropy", "sampler_gap", "dropped"):
        for direction in ("understanding", "generation"):
            assert isinstance(last[f"{name}/{direction}"], float)
    assert last["sampler_gap/generation"] < 1e-4
    assert "guard/kl/generation" in last  # the last round is always looked at
    assert not list(run.rglob("*.partial"))
    loaded = load_model(run / "model")  # a Hugging Face checkpoint like any other
    assert loaded.num_image_tokens == 4


def test_two_runs_are_equal_and_another_seed_is_not(make_config: Make, model_folder: Path) -> None:
    finals = []
    for output, seed in (("one", 1), ("two", 1), ("three", 2)):
        config = make_config(
            f"seed={seed}", "guard.enabled=false", f"model={model_folder}", output=output
        )
        Trainer(config, quiet=True).run()
        finals.append(weights(Path(config.output) / "model"))
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])
    assert not all(torch.equal(finals[0][name], finals[2][name]) for name in finals[0])


@pytest.mark.parametrize(
    "change",
    [
        "objective.name=simpo",
        "objective.name=dpo",
        "objective.name=expert",
        "objective.kl=0.0",
        "objective.normalize=none",
        "directions=alternating",
        "directions=generation",
        "directions=understanding",
        "objective.kl_estimator=k3",
        "reward.scorer=frozen",
        "reward.scorer=random",
        "objective.token_weight=critical",
        "objective.token_weight=siblings",
        "optimizer.steps=2",
        "optimizer.tokens_per_batch=40",
        "optimizer.balance=false",
        "dtype=bfloat16",
        "sampling.policy=cfg",
    ],
)
def test_every_setting_changes_the_weights(
    make_config: Make, default_weights: dict[str, torch.Tensor], change: str
) -> None:
    """A switch that is read but not wired would leave the default run's weights."""
    guided = ["sampling.guidance=3.0"] if change == "sampling.policy=cfg" else []
    config = make_config(change, *guided, "guard.enabled=false", "rounds=2")
    Trainer(config, quiet=True).run()
    final = weights(Path(config.output) / "model")
    assert all(tensor.isfinite().all() for tensor in final.values())
    largest = max(float((final[name] - default_weights[name]).abs().max()) for name in final)
    assert largest > (1e-8 if change == "optimizer.tokens_per_batch=40" else 1e-5)


def test_the_direction_that_is_not_trained_is_held(
    make_config: Make, lively_model_folder: Path
) -> None:
    """Its KL to the start stays a fraction of what it is without a weight worth the name."""
    common = (
        f"model={lively_model_folder}", "rounds=12", "guard.enabled=false", "optimizer.lr=0.01",
        "checkpoint.state_every=12", "checkpoint.every=12",
    )  # fmt: skip
    for direction, other in (("understanding", "generation"), ("generation", "understanding")):
        drift, reward = {}, {}
        for anchor in (1e-9, 3.0):
            config = make_config(
                *common, f"directions={direction}", f"objective.anchor={anchor}",
                output=f"{direction}{anchor}",
            )  # fmt: skip
            Trainer(config, quiet=True).run()
            series = [row[f"anchor_kl/{other}"] for row in rows(config.output)]
            assert series[0] < 1e-6
            drift[anchor] = sum(series[-4:])
            reward[anchor] = rows(config.output)[-1][f"reward/{direction}"]
            assert f"kl/{other}" not in rows(config.output)[-1]
        assert drift[1e-9] > 0.01
        assert drift[3.0] < 0.5 * drift[1e-9]


def test_directions_in_turn_are_held_in_turn(make_config: Make) -> None:
    """And nothing else is balanced than the directions' own losses."""
    changes = "directions=alternating", "rounds=4", "guard.enabled=false"
    config = make_config(*changes, "objective.anchor=0.1")
    Trainer(config, quiet=True).run()
    for index, row in enumerate(rows(config.output)):
        trained, other = [("understanding", "generation"), ("generation", "understanding")][
            index % 2
        ]
        assert f"anchor_kl/{other}" in row
        assert {key for key in row if key.startswith(("balance", "anchor_kl"))} == {
            f"balance/{trained}", f"anchor_kl/{other}",
        }  # fmt: skip


@pytest.fixture
def default_weights(make_config: Make) -> dict[str, torch.Tensor]:
    config = make_config("guard.enabled=false", "rounds=2", output="default")
    Trainer(config, quiet=True).run()
    return weights(Path(config.output) / "model")


def test_reward_goes_up(make_config: Make, model_folder: Path, lively_model_folder: Path) -> None:
    """Frozen scorer, so that nothing but better captions can raise the reward."""
    if load_model(model_folder).reads_tokens:  # of lively weights as it is
        lively_model_folder = model_folder
    config = make_config(
        f"model={lively_model_folder}", "directions=understanding", "objective.kl=0.0",
        "reward.scorer=frozen", "rounds=24", "optimizer.lr=0.01", "candidates=8",
        "guard.enabled=false", "checkpoint.state_every=24",
    )  # fmt: skip
    Trainer(config, quiet=True).run()
    series = [row["reward/understanding"] for row in rows(config.output)]
    spread = rows(config.output)[0]["reward_spread/understanding"]
    # An epoch of three rounds at each end: inputs differ in reward more than candidates do.
    assert sum(series[-3:]) / 3 > sum(series[:3]) / 3 + 0.2 * spread


def test_clip_works_from_the_second_step_on(make_config: Make) -> None:
    """The ratio is to the policy that sampled; to the one of the step before it would be 1."""
    finals = []
    for clip in ("0.0001", "0.9"):
        config = make_config(
            f"objective.clip={clip}", "optimizer.steps=3", "guard.enabled=false", output=clip
        )
        Trainer(config, quiet=True).run()
        finals.append(weights(Path(config.output) / "model"))
    assert any(not torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


def test_vq_model_is_never_trained(make_config: Make, model_folder: Path) -> None:
    config = make_config("guard.enabled=false", f"model={model_folder}")
    Trainer(config, quiet=True).run()
    before, after = weights(model_folder), weights(Path(config.output) / "model")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any("vqmodel" in name for name in changed)
    if (model_folder / VQ_FILE).exists():
        files = [folder / VQ_FILE for folder in (model_folder, Path(config.output) / "model")]
        assert files[0].read_bytes() == files[1].read_bytes()
    parts = ("generation_head", "vision_model") if any("vision_model" in n for n in before) else ()
    for part in (*parts, "embed_tokens", "self_attn"):
        assert any(part in name for name in changed)


def test_guard_ends_with_the_start_when_nothing_is_better(make_config: Make) -> None:
    """A limit that any step breaks: the run stops early and gives the start model back."""
    config = make_config("guard.kl_limit=1e-9", "guard.patience=1", "rounds=9")
    summary = Trainer(config, quiet=True).run()
    assert summary["kept_round"] == 0
    assert summary["rounds"] == 2
    assert "image KL" in summary["stopped"]
    start, final = weights(Path(config.model)), weights(Path(config.output) / "model")
    assert all(torch.equal(start[name], final[name]) for name in start)
    again = Trainer.resume(config.output, quiet=True).run()  # a stopped run stays stopped
    assert again == summary


def test_guard_keeps_the_averaged_weights(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the last step's, which fluctuate; the state file holds both."""
    monkeypatch.setattr(Guard, "_doubt", lambda *_: "")  # such a model gives no evidence
    for seed in range(20):  # until a run whose last look is kept
        config = make_config(
            "guard.kl_limit=100.0", "guard.action=watch", f"seed={seed}", output=f"run{seed}"
        )
        if Trainer(config, quiet=True).run()["kept_round"] == 2:
            break
    run = Path(config.output)
    state = load_file(run / "state" / "000002.safetensors")
    best = weights(run / "best")
    names = [name for name in state if name.startswith("average/model.")]
    assert names
    for name in names:
        saved = name.removeprefix("average/model.")
        assert torch.equal(best[saved], state[name])
    assert any(
        not torch.equal(state[name], state[name.replace("average/", "weight/", 1)])
        for name in names
    )


def test_rollback_restores_the_best_weights(make_config: Make) -> None:
    config = make_config(
        "guard.kl_limit=1e-9", "guard.patience=1", "guard.action=rollback",
        "guard.max_rollbacks=1", "rounds=4", "optimizer.warmup_rounds=0",
    )  # fmt: skip
    trainer = Trainer(config, quiet=True)
    summary = trainer.run()
    assert summary["guard"]["rollbacks"] == 1
    lines = rows(config.output)
    assert lines[3]["lr"] == pytest.approx(lines[2]["lr"] / 2)
    assert lines[3]["kl/generation"] == pytest.approx(0.0, abs=1e-6)  # at the start again


def test_gradients_that_are_not_finite_stop_the_run(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rounds in a row; no weight is touched meanwhile."""

    def poisoned(policy: Any, *args: Any) -> Any:
        sums = honest(policy, *args)
        next(p for p in policy.trainable_parameters() if p.grad is not None).grad[0] = math.nan
        return sums

    honest = suder.run.learner.add_gradient
    monkeypatch.setattr(suder.run.learner, "add_gradient", poisoned)
    config = make_config("rounds=9", "guard.enabled=false")
    summary = Trainer(config, quiet=True).run()
    assert summary["rounds"] == 3
    assert "not finite" in summary["stopped"]
    start, final = weights(Path(config.model)), weights(Path(config.output) / "model")
    assert all(torch.equal(start[name], final[name]) for name in start)


def test_a_round_without_any_candidate_is_an_error_with_the_guard_off(
    make_config: Make, tmp_path: Path
) -> None:
    """Not a run that learns nothing and says it is done. One candidate is enough to go on."""
    rewards = {name: torch.full((8,), math.nan) for name in ("understanding", "generation")}
    finished = {name: torch.ones(8, dtype=torch.bool) for name in rewards}
    with pytest.raises(ValueError, match="every one of the round's 16 candidates was dropped"):
        select_phase(tmp_path, rewards, finished, make_config("guard.enabled=false"))
    (tmp_path / "select.safetensors").unlink()
    chosen = select_phase(tmp_path, rewards, finished, make_config())
    assert not chosen["generation"].valid.any()
    (tmp_path / "select.safetensors").unlink()
    rewards["generation"][3] = -1.0
    assert select_phase(tmp_path, rewards, finished, make_config("guard.enabled=false"))


def test_empty_captions_are_dropped_and_named(make_config: Make) -> None:
    config = make_config("rounds=3", "guard.enabled=false", "sampling.max_new_tokens=2",
                         "candidates=12")  # fmt: skip
    summary = Trainer(config, quiet=True).run()
    dropped = read_jsonl(Path(config.output) / "data" / "dropped.jsonl")
    assert summary["candidates_dropped"] == len(dropped) > 0
    counted = sum(row["dropped/understanding"] for row in rows(config.output))
    assert counted == len(dropped)
    assert {row["direction"] for row in dropped} == {"understanding"}
    assert all("empty caption" in row["why"] for row in dropped)
    assert all(Path(row["input"]).is_file() for row in dropped)


def test_folder_that_holds_a_run(make_config: Make) -> None:
    config = make_config("rounds=1")
    Trainer(config, quiet=True).run()
    with pytest.raises(RunError, match=r"holds a run already: .*--resume"):
        Trainer(config, quiet=True)


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run to resume"):
        Trainer.resume(tmp_path)


def test_resume_with_another_start_model(
    make_config: Make, tmp_path: Path, random_model_folder: Path
) -> None:
    moved = load_model(random_model_folder)
    moved.save(tmp_path / "start")
    config = make_config(f"model={tmp_path / 'start'}", "rounds=1")
    Trainer(config, quiet=True).run()
    with torch.no_grad():
        moved.trainable_parameters()[0][0] += 1
    moved.save(tmp_path / "start")
    with pytest.raises(RunError, match=r"is not the model that .* began with"):
        Trainer.resume(config.output)


@pytest.mark.parametrize("normalize", ["std", "mean", "none"])
def test_a_caption_that_was_cut_off_takes_no_part(
    make_config: Make, tmp_path: Path, normalize: Any
) -> None:
    """Neither best nor worst, without advantage, and the others' are what they are without it."""
    reward = torch.tensor([-1.0, -2.0, -9.0, -4.0, -3.0, -5.0, -6.0, -7.0])
    finished = torch.tensor([False, True, False, True, True, True, False, True])
    given = {"understanding": reward}, {"understanding": finished}
    change = f"objective.normalize={normalize}"
    chosen = select_phase(
        tmp_path, *given, make_config(change, "reward.cut_captions=drop")
    )["understanding"]  # fmt: skip
    alone = select(reward.masked_fill(~finished, torch.nan), 4, normalize)
    assert chosen.valid.tolist() == finished.tolist()
    assert (chosen.best.tolist(), chosen.worst.tolist()) == ([1, 4], [3, 7])
    assert torch.equal(chosen.advantage, alone.advantage)
    assert (chosen.advantage[~finished] == 0).all()
    (tmp_path / "select.safetensors").unlink()
    kept = select_phase(tmp_path, *given, make_config(change))["understanding"]
    assert (kept.best.tolist(), kept.worst.tolist()) == ([0, 4], [2, 7])
    assert torch.equal(kept.advantage, select(reward, 4, normalize).advantage)
    assert TrainConfig.model_fields["reward"].default.cut_captions == "drop"
