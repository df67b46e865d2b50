"""Interrupted anywhere, a resumed run ends with the bits of one that never was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import suder.run.learner
import suder.run.rounds
import suder.run.sampled
import suder.storage.files
from suder.guard.rule import Guard
from suder.run.folder import RunError
from suder.run.states import States
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.config_file import load_config
from suder.storage.files import read_jsonl

Make = Callable[..., TrainConfig]
# Momentum, averages, checkpoints and the guard all have state to lose here.
CHANGES = ("guard.every=2", "guard.patience=1", "checkpoint.every=3", "checkpoint.state_every=3")
GUARD = {
    "rolls back": ("guard.kl_limit=1e-9", "guard.action=rollback", "guard.max_rollbacks=5"),
    "keeps": ("guard.kl_limit=100.0", "guard.action=watch", "seed=4"),
    "keeps, one held": ("guard.kl_limit=100.0", "guard.action=watch", "directions=understanding"),
}


class Crash(BaseException):
    """Not an Exception: nothing on the way may catch it and tidy up."""


def result(run: str | Path) -> tuple[bytes, list[dict[str, Any]], list[dict[str, Any]]]:
    """Final weights, the log without its clock, and what was dropped."""
    run = Path(run)
    log = [
        {key: value for key, value in row.items() if not key.startswith("seconds")}
        for row in read_jsonl(run / "metrics.jsonl")
    ]
    return (
        (run / "model" / "model.safetensors").read_bytes(),
        log,
        read_jsonl(run / "data" / "dropped.jsonl"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARD)
def test_crash_between_any_two_files(
    make_config: Make, lively_model_folder: Path, monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    """Every rename of a run takes the disk from one state to the next: die in each of them."""
    monkeypatch.setattr(Guard, "_doubt", lambda *_: "")  # such a model gives no evidence
    changes = ("rounds=3", f"model={lively_model_folder}", *CHANGES, *GUARD[guard])
    whole = make_config(*changes, output="whole")
    names: list[str] = []
    rename = os.replace

    def noting(a: Any, b: Any) -> None:
        """Keeps what a process that dies here leaves on the disk: nothing tidies up after it."""
        if Path(whole.output).exists():
            shutil.copytree(whole.output, Path(whole.output).with_name(f"crash{len(names)}"))
        names.append(Path(b).name)
        rename(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(suder.storage.files.os, "replace", noting)
        summary = Trainer(whole, quiet=True).run()
    assert summary["guard"]["rollbacks"] == (2 if guard == "rolls back" else 0)
    assert ("best.old" in names) == (guard != "rolls back")
    expected = result(whole.output)
    for point, name in enumerate(names):
        config = make_config(*changes, output=f"crash{point}")
        begun = (Path(config.output) / "config.yaml").exists()
        again = Trainer.resume(config.output, quiet=True) if begun else Trainer(config, quiet=True)
        again.run()
        assert result(config.output) == expected, f"{point}: {name}"


def test_resuming_what_is_finished_changes_nothing(make_config: Make, model_folder: Path) -> None:
    config = make_config("rounds=2", f"model={model_folder}")
    summary = Trainer(config, quiet=True).run()
    before = result(config.output)
    assert Trainer.resume(config.output, quiet=True).run() == summary
    assert result(config.output) == before


@pytest.mark.parametrize("directions", ["joint", "generation"])
def test_phases_on_disk_are_not_done_again(
    make_config: Make, model_folder: Path, monkeypatch: pytest.MonkeyPatch, directions: str
) -> None:
    """Sampling is most of a big model's round: what was written is read, not sampled anew."""
    common = ("rounds=1", "guard.enabled=false", f"model={model_folder}")
    config = make_config(*common, f"directions={directions}")

    def dying(*arguments: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(suder.run.learner.Updater, "step", dying)
        with pytest.raises(Crash):
            Trainer(config, quiet=True).run()
    trainer = Trainer.resume(config.output, quiet=True)
    monkeypatch.setattr(suder.run.sampled, "sample_rollouts", dying)
    monkeypatch.setattr(suder.run.rounds, "reward_of", dying)
    monkeypatch.setattr(suder.run.rounds, "select", dying)
    assert trainer.run()["rounds"] == 1


def test_a_finished_run_goes_on_for_longer(make_config: Make, lively_model_folder: Path) -> None:
    changes = (f"model={lively_model_folder}", *CHANGES, *GUARD["keeps"])
    whole = make_config(*changes, "rounds=4", output="whole")
    config = make_config(*changes, "rounds=2", output="longer")
    Trainer(whole, quiet=True).run()
    Trainer(config, quiet=True).run()
    with pytest.raises(RunError, match="a run of 2, it cannot become 1"):
        Trainer.resume(config.output, rounds=1)
    summary = Trainer.resume(config.output, quiet=True, rounds=4).run()
    assert summary["rounds_asked"] == 4
    assert load_config(Path(config.output, "config.yaml")).rounds == 4
    assert result(config.output) == result(whole.output)


def test_what_the_guard_stopped_does_not_go_on(
    make_config: Make, lively_model_folder: Path
) -> None:
    stops = ("guard.kl_limit=1e-9", "guard.patience=1", "guard.every=1", "rounds=2")
    config = make_config(f"model={lively_model_folder}", *stops)
    assert Trainer(config, quiet=True).run()["stopped"]
    with pytest.raises(RunError, match="the guard stopped"):
        Trainer.resume(config.output, rounds=4)


def test_resumed_run_keeps_the_inputs_it_began_with(make_config: Make, tmp_path: Path) -> None:
    """New pictures in the folder, or a changed prompts file, would be another run."""
    whole = make_config("rounds=4", "guard.enabled=false", output="whole")
    Trainer(whole, quiet=True).run()
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(Path(whole.data.prompts).read_text(encoding="utf-8"), encoding="utf-8")
    config = make_config(
        "rounds=4", "guard.enabled=false", f"data.prompts={prompts}", output="part"
    )
    trainer = Trainer(config, quiet=True)
    write = States.write

    def interrupted(self: States, index: int, looked: bool) -> None:
        write(self, index, looked)
        if index == 2:
            raise Crash

    trainer.states.write = interrupted.__get__(trainer.states)  # type: ignore[method-assign]
    with pytest.raises(Crash):
        trainer.run()
    prompts.write_text("a green circle\n", encoding="utf-8")
    Trainer.resume(config.output, quiet=True).run()
    assert result(config.output)[0] == result(whole.output)[0]
