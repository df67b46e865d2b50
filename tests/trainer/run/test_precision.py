"""Runs in bfloat16: gradients that are those of the present weights, and files that are exact."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import suder.run.learner
from suder.engine.weights import to_sample_with
from suder.guard.rule import Guard
from suder.method.balance import Updater
from suder.models import load_model
from suder.models.janus.adapter import Janus
from suder.run.learner import Learner
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.storage.files import read_jsonl

Make = Callable[..., TrainConfig]


def float32(model: Any) -> Any:
    twin = copy.deepcopy(model)
    twin.zero_grad(set_to_none=True)
    twin.compute = None
    return twin


def test_gradients_of_four_steps_are_those_of_float32(
    make_config: Make, lively_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step, at the weights of that step: an old cast of one would point elsewhere.

    Without clipping, where a token's whole gradient hangs on which side of the bound it falls.
    """
    honest = suder.run.learner.add_gradient
    firsts: dict[str, Any] = {}
    cosines: list[float] = []

    def compared(policy: Any, start: Any, rollouts: Any, *others: Any) -> Any:
        selection, condition, config, first, _ = others
        sums = honest(policy, start, rollouts, *others)
        twin = float32(policy)
        with torch.autocast("cpu", enabled=False):
            exact = honest(
                twin, float32(start), rollouts, selection, condition, config,
                firsts.get(rollouts.direction),
            )  # fmt: skip
        firsts.setdefault(rollouts.direction, exact)
        assert (first is None) == (exact is firsts[rollouts.direction])
        pairs = [
            (one.grad.flatten(), other.grad.flatten())
            for one, other in zip(policy.parameters(), twin.parameters(), strict=True)
            if other.grad is not None
        ]
        ours, theirs = (torch.cat(parts).double() for parts in zip(*pairs, strict=True))
        cosines.append(float(torch.cosine_similarity(ours, theirs, dim=0)))
        return sums

    monkeypatch.setattr(suder.run.learner, "add_gradient", compared)
    config = make_config(
        "dtype=bfloat16", "rounds=1", "optimizer.steps=4", "optimizer.lr=0.003",
        "guard.enabled=false", "objective.name=simpo", f"model={lively_model_folder}",
        "candidates=8",
    )  # fmt: skip
    Trainer(config, quiet=True).run()
    assert len(cosines) == 8  # four steps of two directions
    assert min(cosines) > 0.99, cosines


@pytest.mark.parametrize("lora", [0, 3])
def test_no_weight_changes_and_no_file_is_written_inside_a_region(
    make_config: Make, lively_model_folder: Path, monkeypatch: pytest.MonkeyPatch, lora: int
) -> None:
    """Steps, the average moved and swapped in, a roll-back, checkpoints: all of them outside."""
    monkeypatch.setattr(Guard, "_doubt", lambda *_: "")
    seen: set[str] = set()

    def outside(owner: type, name: str) -> None:
        plain = getattr(owner, name)

        def checked(*args: Any, **options: Any) -> Any:
            assert not torch.is_autocast_enabled("cpu"), f"{name} inside an autocast region"
            seen.add(name)
            return plain(*args, **options)

        monkeypatch.setattr(owner, name, checked)

    changes = ("step", "end_round", "_exchange", "restart", "load_state")
    for name in changes:
        outside(Updater, name)
    outside(Janus, "save")
    outside(Learner, "restart")
    config = make_config(
        "dtype=bfloat16", "rounds=3", f"lora.rank={lora}", f"model={lively_model_folder}",
        "guard.action=rollback", "guard.patience=1", "guard.kl_limit=1e-9", "guard.every=1",
        "guard.max_rollbacks=1", "checkpoint.every=1",
    )  # fmt: skip
    assert Trainer(config, quiet=True).run()["guard"]["rollbacks"] == 1
    Trainer.resume(config.output, quiet=True).run()
    assert seen == {*changes, "save"}


def test_merged_weights_are_exact(
    make_config: Make, lively_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """model/ of a run in bfloat16 holds the start's weights plus the adapters' product."""
    config = make_config(
        "dtype=bfloat16", "rounds=2", "lora.rank=3", f"model={lively_model_folder}",
        "optimizer.lr=0.02",
    )  # fmt: skip
    monkeypatch.setattr(Guard, "judge", lambda *_: "keep")
    Trainer(config, quiet=True).run()
    run = Path(config.output)
    state = load_file(run / "state" / "000002.safetensors")
    start, final = (
        load_file(Path(at) / "model.safetensors") for at in (config.model, run / "model")
    )
    scale = config.lora.alpha / config.lora.rank
    moved = 0
    for name, value in final.items():
        adapter = f"average/model.base_model.model.{name.removesuffix('.weight')}.lora_"
        expected = start[name].double()
        if f"{adapter}A.default.weight" in state:
            a, b = (state[f"{adapter}{side}.default.weight"].double() for side in "AB")
            expected = expected + scale * b @ a
            moved += 1
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)
    assert moved == 7 * 1  # linear layers of the language model's one layer


@pytest.mark.parametrize("asked", [None, "float32"])
def test_models_of_a_run_have_the_dtype_of_the_start(
    make_config: Make, lively_model_folder: Path, tmp_path: Path, asked: str | None
) -> None:
    """A bfloat16 checkpoint came back twice as large; another dtype is a setting."""
    load_model(lively_model_folder, saved=torch.bfloat16).save(tmp_path / "start")
    changes = [f"model={tmp_path / 'start'}", "checkpoint.every=1"]
    config = make_config(*changes, *([f"checkpoint.dtype={asked}"] if asked else []))
    Trainer(config, quiet=True).run()
    wanted = torch.float32 if asked else torch.bfloat16
    for folder in ("model", "checkpoints/000002"):
        file = Path(config.output) / folder / "model.safetensors"
        assert {value.dtype for value in load_file(file).values()} == {wanted}


@pytest.mark.parametrize("lora", [0, 2])
def test_rollback_is_exact_from_a_checkpoint_of_16_bits(
    make_config: Make, lively_model_folder: Path, tmp_path: Path, lora: int
) -> None:
    """It went back to best weights that had been rounded to the checkpoint's dtype."""
    load_model(lively_model_folder, saved=torch.bfloat16).save(tmp_path / "start")
    learner = Learner(make_config(f"model={tmp_path / 'start'}", f"lora.rank={lora}"))
    updater, model = learner.updater, learner.policy
    with torch.no_grad():
        for mean in updater.average:
            mean.add_(1e-3 * torch.randn(mean.shape))
    wanted = [mean.clone() for mean in updater.average]
    with updater.averaged():
        learner.save_best(tmp_path / "best", model)
        model.save(tmp_path / "expected")
    learner.restart(tmp_path / "best")
    assert all(map(torch.equal, updater.params, wanted))
    learner.save_final(tmp_path / "best", tmp_path / "final")
    files = sorted(
        one.relative_to(tmp_path / "expected")
        for one in (tmp_path / "expected").rglob("*")
        if one.is_file()
    )
    for one in files:
        assert (tmp_path / "final" / one).read_bytes() == (tmp_path / "expected" / one).read_bytes()


@pytest.mark.parametrize("objective", ["grpo", "dpo"])
def test_a_start_model_in_16_bits_changes_no_bit(
    make_config: Make, lively_model_folder: Path, objective: str
) -> None:
    """Products read what autocast would make of float32; the guard, the KL and rewards use it."""
    common = (
        "dtype=bfloat16", "guard.every=1", "reward.scorer=frozen", f"model={lively_model_folder}",
        f"objective.name={objective}",
    )  # fmt: skip
    folders = []
    for dtype in ("float32", "bfloat16"):
        config = make_config(*common, f"optimizer.start_dtype={dtype}", output=f"start_{dtype}")
        trainer = Trainer(config, quiet=True)
        start = trainer.learner.start
        narrow = {
            layer.weight.dtype for layer in start.modules() if isinstance(layer, torch.nn.Linear)
        }
        assert (torch.bfloat16 in narrow) == (dtype == "bfloat16")
        policy = {id(weight) for weight in trainer.learner.policy.trainable_parameters()}
        assert not policy & {id(weight) for weight in start.parameters()}
        reader = to_sample_with(start).core.lm_head.weight
        assert (reader is start.core.lm_head.weight) == (dtype == "bfloat16")  # no second copy
        trainer.run()
        folders.append(Path(config.output))
    one, other = (load_file(folder / "best" / "model.safetensors") for folder in folders)
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows, others = (
        [
            {key: value for key, value in row.items() if not key.startswith("seconds")}
            for row in read_jsonl(folder / "metrics.jsonl")
        ]
        for folder in folders
    )
    assert rows == others
    assert any(row.get("kl/generation") for row in rows)


def test_a_start_model_in_16_bits_needs_products_in_them(make_config: Make) -> None:
    with pytest.raises(ValueError, match="start_dtype bfloat16 with dtype float32 would find"):
        make_config("optimizer.start_dtype=bfloat16")
