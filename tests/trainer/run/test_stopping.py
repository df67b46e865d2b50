"""SIGTERM and ctrl-c in every phase: soon over, a state written, the same bits afterwards."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from suder import ranks
from suder.cli import main
from suder.guard.watch import Watch
from suder.method.balance import Updater
from suder.run import rounds, sampled, states, stopping
from suder.run.stopping import ASKING, Stopped, Stopping
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.config_file import dump_config
from suder.storage.checkpoint import state_files
from suder.storage.files import read_jsonl

Make = Callable[..., TrainConfig]
# Where the signal comes, the how-manieth time; the round whose state is there afterwards, by
# checkpoint.state_every: without a state of the round before, an update under way is finished.
PLACES = {
    "sample": (sampled, "sample_rollouts", 4, {1: 1, 9: 1}),
    "score": (rounds, "reward_of", 4, {1: 1, 9: 1}),
    "select": (rounds, "select", 3, {1: 1, 9: 1}),
    "step": (Updater, "step", 2, {1: 1, 9: 2}),
    "look": (Watch, "look", 2, {1: 2, 9: 3}),
    "state": (states, "save_state", 2, {1: 0, 9: 3}),
    "state written": (states, "drop_rounds", 2, {1: 2, 9: 4}),
    "model": (states, "write_folder", 2, {1: 4, 9: 4}),
}


def result(run: str) -> tuple[bytes, list[Any]]:
    rows = read_jsonl(Path(run) / "metrics.jsonl")
    weights = (Path(run) / "model" / "model.safetensors").read_bytes()
    return weights, [row["reward/generation"] for row in rows[1:]]


@pytest.fixture(scope="module")
def expected() -> dict[Path, Any]:
    return {}


@pytest.mark.parametrize(
    ("model_folder", "place", "every"),
    [*product(["janus"], PLACES, [1, 9]), ("emu3", "score", 9), ("liquid", "step", 1)],
    indirect=["model_folder"],
)
def test_signal_in_every_phase(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, expected: dict[Path, Any],
    model_folder: Path, place: str, every: int,
) -> None:  # fmt: skip
    settings = ("rounds=4", "guard.every=3", "guard.action=watch", "checkpoint.every=4")
    settings += (f"model={model_folder}",)
    if model_folder not in expected:
        whole = make_config(*settings, output="whole")
        Trainer(whole, quiet=True).run()
        expected[model_folder] = result(whole.output)
    config = make_config(*settings, f"checkpoint.state_every={every}")
    owner, name, count, written = PLACES[place]
    honest, calls = getattr(owner, name), iter(range(1, 99))

    def signalled(*arguments: Any, **options: Any) -> Any:
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(*arguments, **options)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, signalled)
        said = rf"stopped by SIGTERM after round {written[every]}, .*suder train --resume "
        with pytest.raises(Stopped, match=said) as stopped:
            Trainer(config, quiet=True).run()
    assert stopped.value.exit_code == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert int(state_files(Path(config.output))[-1].stem) == written[every]
    assert not list(Path(config.output).rglob("*.partial"))
    Trainer.resume(config.output, quiet=True).run()
    assert result(config.output) == expected[model_folder]


def test_long_phase_is_given_up(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling of a big model takes minutes: it is not waited for."""
    monkeypatch.setattr(sampled, "sample_rollouts", lambda *_: time.sleep(60))
    trainer = Trainer(make_config("guard.enabled=false"), quiet=True)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    began = time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt) as stopped:
        trainer.run()
    assert time.perf_counter() - began < 10
    assert stopped.value.exit_code == 130  # type: ignore[attr-defined]


def test_stopped_before_there_is_a_state(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("rounds=1")
    look = Watch.look

    def signalled(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return look(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "look", signalled)
        with pytest.raises(
            Stopped, match=r"SIGTERM before the first state was written; .*--resume"
        ):
            Trainer(config, quiet=True).run()
    assert not state_files(Path(config.output))
    assert Trainer.resume(config.output, quiet=True).run()["rounds"] == 1


@pytest.fixture
def restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ASKING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_second_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int, Any]] = []

    def record(process: int, number: int) -> None:
        sent.append((process, number, signal.getsignal(number)))

    with Stopping() as stop:
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(stopping.os, "kill", record)
        signal.raise_signal(signal.SIGINT)
        assert sent == [(os.getpid(), signal.SIGINT, signal.SIG_DFL)]
        with pytest.raises(Stopped):
            stop.check()


def test_who_lost_another_has_time_to_say_so(restored: None) -> None:
    """A launcher sends SIGTERM to the others as soon as one process has died."""
    with pytest.raises(ranks.Lost), Stopping():
        raise ranks.Lost("process 0 of 2 lost the others")
    signal.raise_signal(signal.SIGTERM)  # would end this process
    for number in ASKING:
        signal.signal(number, signal.SIG_DFL)
    with pytest.raises(ValueError), Stopping():
        raise ValueError("an error of its own")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_ignored_signals_and_other_handlers_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """nohup ignores SIGINT; a scheduler's own handler knows better what to do."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stopping() as stop:
            signal.raise_signal(signal.SIGINT)
            stop.check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_command_ends_well(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = make_config("rounds=1")
    settings = tmp_path / "settings.yaml"
    settings.write_text(dump_config(config), encoding="utf-8")
    honest = sampled.sample_rollouts

    def signalled(*arguments: Any) -> Any:
        os.kill(os.getpid(), number)
        return honest(*arguments)

    monkeypatch.setattr(sampled, "sample_rollouts", signalled)
    number = signal.SIGTERM
    assert main(["train", str(settings), "--quiet"]) == 0
    assert f"to go on: suder train --resume {config.output}" in capsys.readouterr().err
    number = signal.SIGINT
    assert main(["train", "--resume", config.output, "--quiet"]) == 130
    assert "stopped by SIGINT after round 0" in capsys.readouterr().err
