"""A picture that vanishes or changes while a run goes on is dropped and counted, in every phase."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import suder.method.conditions
import suder.run.rounds
import suder.run.sampled
from suder.inputs.files import DataError
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.storage.files import read_json, read_jsonl, read_tensors

Make = Callable[..., TrainConfig]
DIES_IN = {
    "sample": ("suder.run.sampled.sample_rollouts", False),
    "score": ("suder.run.rounds.reward_of", True),
    "select": ("suder.run.rounds.select", True),
    "optimise": ("suder.run.learner.Updater.step", True),
    "held": ("suder.run.learner.add_anchor", True),
}
HARMS: dict[str, Callable[[Path], Any]] = {
    "vanishes": Path.unlink,
    "changes": lambda path: Image.new("RGB", (16, 16), "red").save(path),
    "is cut off": lambda path: path.write_bytes(path.read_bytes()[:50]),
}


class Crash(BaseException):
    """Not an Exception: nothing on the way may catch it."""


def dies(*args: Any, **options: Any) -> None:
    raise Crash


@pytest.fixture
def pictures(inputs_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(inputs_folder / "pictures", tmp_path / "pictures")
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    ("model_folder", "phase", "harm"),
    [("janus", phase, "vanishes") for phase in DIES_IN]
    + [("janus", "score", "changes"), ("janus", "optimise", "changes")]
    + [("janus", "optimise", "is cut off"), ("emu3", "score", "vanishes")]
    + [("liquid", "optimise", "changes")],
    indirect=["model_folder"],
)
def test_between_the_phases_of_a_round(
    make_config: Make, model_folder: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch,
    phase: str, harm: str,
) -> None:  # fmt: skip
    # Those that a run of the other direction holds are lost and told in the same way.
    directions = "generation" if phase == "held" else "understanding"
    changes = ("rounds=2", "guard.enabled=false", f"directions={directions}")
    changes += (f"model={model_folder}",)
    config = make_config(*changes, f"data.images={pictures}", "inputs_per_round=9")
    where, sampled = DIES_IN[phase]
    with monkeypatch.context() as patch:
        patch.setattr(where, dies)
        with pytest.raises(Crash):
            Trainer(config, quiet=True).run()
    trainer = Trainer.resume(config.output, quiet=True)
    path = trainer.inputs.images[0]
    first = Path(config.output) / "rounds/000001/sample.safetensors"
    assert first.exists() == sampled
    HARMS[harm](Path(path))
    summary = trainer.run()
    assert summary["rounds"] == 2
    rows = read_jsonl(Path(config.output) / "data/dropped.jsonl")
    lost = [row for row in rows if row.get("input") == path and "candidate" not in row]
    # Twelve pictures and nine a round: it may be asked for in both.
    assert {row["round"] for row in lost} >= {1}
    assert all(path in row["why"] for row in lost)
    if harm == "changes":
        assert "has changed" in lost[0]["why"]
    assert path not in read_tensors(first)[1]["understanding"]["inputs"]
    assert summary["candidates_dropped"] >= len(lost)


def test_a_round_whose_pictures_are_all_gone_takes_others(
    make_config: Make, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ("rounds=1", "guard.enabled=false", "directions=understanding", "inputs_per_round=2")
    config = make_config(*changes, f"data.images={pictures}")
    with monkeypatch.context() as patch:
        patch.setattr("suder.run.learner.Updater.step", dies)
        with pytest.raises(Crash):
            Trainer(config, quiet=True).run()
    first = Path(config.output) / "rounds/000001/sample.safetensors"
    asked = read_tensors(first)[1]["understanding"]["inputs"]
    for path in asked:
        Path(path).unlink()
    assert Trainer.resume(config.output, quiet=True).run()["rounds"] == 1
    taken = read_tensors(first)[1]["understanding"]["inputs"]
    assert len(taken) == 2
    assert not set(taken) & set(asked)
    rows = read_jsonl(Path(config.output) / "data/dropped.jsonl")
    assert {row["input"] for row in rows if "candidate" not in row} == set(asked)


def test_no_picture_left_is_told(make_config: Make, pictures: Path) -> None:
    config = make_config("guard.enabled=false", f"data.images={pictures}")
    trainer = Trainer(config, quiet=True)
    shutil.rmtree(pictures)
    with pytest.raises(
        DataError, match=r"none of the round's pictures can be read any more: .*png"
    ):
        trainer.run()


def test_the_guard_watches_what_is_left(make_config: Make, pictures: Path) -> None:
    config = make_config("rounds=1", f"data.images={pictures}")
    trainer = Trainer(config, quiet=True)
    gone = trainer.inputs.watched_images[0]
    Path(gone).unlink()
    trainer.run()
    assert Trainer.resume(config.output, quiet=True).run()["rounds"] == 1
    rows = read_jsonl(Path(config.output) / "data/dropped.jsonl")
    assert sum(row["round"] == 0 and row["input"] == gone for row in rows) == 1


def test_pictures_are_read_once_a_round(
    make_config: Make, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("rounds=1", "guard.enabled=false", f"data.images={pictures}")
    trainer = Trainer(config, quiet=True)
    read: Counter[str] = Counter()
    load = suder.method.conditions.load_picture

    def counted(path: str, *args: Any) -> Any:
        read[path] += 1
        return load(path, *args)

    monkeypatch.setattr(suder.method.conditions, "load_picture", counted)
    trainer.run()
    assert sorted(read.values()) == [1] * config.inputs_per_round
    assert set(read) <= set(read_json(Path(config.output) / "data/inputs.json")["digests"])
