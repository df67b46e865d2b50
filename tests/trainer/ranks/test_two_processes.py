"""Two processes (gloo) do what one does: the same rewards, losses and weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from suder.models import load_model
from suder.run import learner
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.config_file import dump_config
from suder.storage.files import read_jsonl, read_tensors
from tests.tolerances import TOLERANCES
from tests.trainer.families import small_liquid
from tests.trainer.ranks.worker import load

Make = Callable[..., TrainConfig]
WORKER = Path(__file__).with_name("worker.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


def launch(
    *arguments: str, launcher: tuple[str, ...] = TORCHRUN, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    command = [*launcher, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.terminate()  # and the launcher ends what it started
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def written(config: TrainConfig, name: str = "settings") -> str:
    path = Path(config.output).with_suffix(f".{name}.yaml")
    path.write_text(dump_config(config), encoding="utf-8")
    return str(path)


RUNS = {
    # Every process must then run as many blocks as the other, which has more inputs.
    "shard": (
        "optimizer.shard=true", "optimizer.tokens_per_batch=64", "objective.kl=0.05",
        "sampling.offload=true",
    ),
    "grpo": ("objective.kl=0.05", "optimizer.steps=2"),
    "simpo": (
        "objective.name=simpo", "objective.kl=0.05", "lora.rank=4", "reward.external_weight=0.5",
        "reward.external=tests.trainer.method.toy_reward:brightness",
    ),
    "bfloat16": (
        "dtype=bfloat16", "optimizer.shard=true", "optimizer.checkpoint_activations=true",
        "sampling.offload=true",
        "rounds=1", "guard.enabled=false",  # after it, a token of 80 may be another
        "inputs_per_round=1",  # one process has none
    ),
    "held": (
        "directions=generation", "optimizer.shard=true", "optimizer.tokens_per_batch=64",
        "guard.enabled=false", "rounds=2",
    ),
    "held, each alone": (
        "directions=understanding", "objective.name=simpo", "lora.rank=4", "guard.enabled=false",
        "rounds=2",
    ),
    # Its loss sorts all pairs of the round; alone, the blocks of a direction are several.
    "aot": (
        "objective.name=dpo", "objective.loss_type=aot", "optimizer.tokens_per_batch=64",
        "lora.rank=4", "guard.enabled=false", "rounds=2",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """See `worker.load`. In float32 two orders of a sum part ways: Adam makes steps of the rounding
    in a gradient that is zero, and a pixel at half a step of its 255 is one or the other. In
    float64 neither shows.
    """
    monkeypatch.setattr(learner, "load_model", load)


@pytest.fixture
def make(make_config: Make, lively_model_folder: Path) -> Make:
    """Five rounds of both directions; of five inputs one process has two and the other three."""
    common = ("rounds=5", "inputs_per_round=5", "guard.every=5", f"model={lively_model_folder}")

    def settings(*changes: str, output: str) -> TrainConfig:
        return make_config(*common, *changes, output=output)

    return settings


def numbers_of(config: TrainConfig) -> list[dict[str, Any]]:
    rows = read_jsonl(Path(config.output) / "metrics.jsonl")
    return [{key: row[key] for key in row if not key.startswith("seconds")} for row in rows]


def assert_same_run(one: TrainConfig, two: TrainConfig) -> None:
    limits = TOLERANCES["processes", "cpu", getattr(torch, two.dtype)]
    for phase in ("sample", "score"):
        for folder in sorted((Path(one.output) / "rounds").iterdir()):
            name = f"{phase}.safetensors"
            expected, about = read_tensors(folder / name)
            got, known = read_tensors(Path(two.output) / "rounds" / folder.name / name)
            assert known == about
            torch.testing.assert_close(got, expected, equal_nan=True, **limits)
    for expected, got in zip(numbers_of(one), numbers_of(two), strict=True):
        assert got.keys() == expected.keys()
        for key in expected:
            assert got[key] == pytest.approx(
                expected[key], rel=limits["rtol"], abs=limits["atol"]
            ), key
    last = sorted((Path(one.output) / "state").iterdir())[-1].name
    expected, got = (read_tensors(Path(run.output) / "state" / last)[0] for run in (one, two))
    assert got.keys() == expected.keys()
    for key in expected:
        if key.startswith(("weight/", "average/")):
            torch.testing.assert_close(got[key], expected[key], **limits)
    files = (Path(run.output) / "model/model.safetensors" for run in (one, two))
    expected, got = map(load_file, files)
    torch.testing.assert_close(got, expected, **limits)


def test_two_processes_train_as_one(make: Make, tmp_path: Path) -> None:
    # Liquid's embedding is its head as well: a weight of two names.
    small_liquid().save(tmp_path / "liquid")
    runs = RUNS | {"liquid": (f"model={tmp_path / 'liquid'}", "optimizer.shard=true", "rounds=2")}
    two = {name: make(*runs[name], output=f"two-{name}") for name in runs}
    done = launch(str(WORKER), *(written(config) for config in two.values()))
    assert done.returncode == 0, done.stderr
    for name, config in two.items():
        one = make(*runs[name], output=f"one-{name}")
        Trainer(one, quiet=True).run()
        assert_same_run(one, config)


def test_what_ends_one_process_ends_both(make: Make, tmp_path: Path) -> None:
    """One run is asked to stop in one process, and both go on with it; another is killed in one
    process, the other says so, and a process alone goes on. All end as a run never interrupted.
    """
    asked = make("rounds=2", "optimizer.shard=true", output="asked")
    killed, whole = (make("rounds=2", output=name) for name in ("killed", "whole"))
    done = launch(  # in time: gloo itself would wait half an hour for the one that was killed
        str(WORKER), f"asked:{written(asked)}", written(asked), f"killed:{written(killed)}"
    )
    assert done.returncode != 0
    for rank in (0, 1):
        said = f"process {rank}: stopped by SIGTERM after round 1, whose state is written"
        assert said in done.stdout
    lost = "process 0 of 2 lost the others: one of them has ended"
    assert lost in done.stderr, done.stderr
    assert f"to go on: suder train --resume {killed.output}" in done.stderr
    Trainer(whole, quiet=True).run()
    assert_same_run(whole, asked)
    assert len(read_jsonl(Path(killed.output) / "metrics.jsonl")) == 2
    trainer = Trainer.resume(killed.output, quiet=True)
    trainer.run()
    assert "the run had 2 processes and has 1 now" in trainer.notes[0]
    assert_same_run(whole, killed)


def test_accelerate_launches_the_command(make: Make, tmp_path: Path) -> None:
    """`accelerate launch -m suder train`; the first process speaks for both."""
    config = make("rounds=1", "guard.enabled=false", output="run")
    accelerate = (
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "suder",
    )  # fmt: skip
    settings = written(config)
    done = launch("train", settings, launcher=accelerate)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("memory:") == 1
    assert done.stderr.count("1 round; the weights of round 1 are in") == 1
    assert load_model(Path(config.output) / "model")
