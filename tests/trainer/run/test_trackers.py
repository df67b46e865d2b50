"""What a run tells the trackers of `log_with`, and what it says of those that it cannot have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, register_tracker_class

from suder.run.trackers import check_trackers
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.storage.files import read_jsonl


class Noting(GeneralTracker):
    """A user's own, registered with accelerate."""

    name = "noting"
    requires_logging_directory = True
    told: dict[str, Any]
    away = False

    def __init__(self, project: str, where: str) -> None:
        super().__init__()
        type(self).told = {"project": project, "where": where, "rounds": {}, "finished": 0}

    @property
    def tracker(self) -> Any:
        return self.told

    def start(self) -> None:
        self.told["started"] = True

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told["settings"] = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        if self.away and step == 1:
            raise OSError("no route to host")
        self.told["rounds"][step] = values

    def finish(self) -> None:
        self.told["finished"] += 1


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_tracker_class(Noting)
    yield
    del LOGGER_TYPE_TO_CLASS[Noting.name]


@pytest.mark.parametrize("away", [False, True])
def test_a_tracker_is_told_what_the_log_is(
    make_config: Callable[..., TrainConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    away: bool,
) -> None:
    monkeypatch.setattr(Noting, "away", away)
    config = make_config("log_with=[tensorboard, noting]", "rounds=2", "data.heldout=0.25")
    Trainer(config).run()
    told, rows = Noting.told, read_jsonl(Path(config.output) / "metrics.jsonl")
    assert (told["project"], told["where"]) == ("suder", config.output)
    assert told["settings"]["optimizer.lr"] == config.optimizer.lr
    assert list((Path(config.output) / "tensorboard").iterdir())
    if away:  # the run goes on without it
        assert list(told["rounds"]) == [0]
        assert len(rows) == 3
        assert "noting gets no more of this run: no route to host" in capsys.readouterr().err
        return
    assert told["finished"] == 1
    assert list(told["rounds"]) == [row["round"] for row in rows]
    for row in rows:
        sent = told["rounds"][row.pop("round")]
        assert sent == pytest.approx({k: v for k, v in row.items() if v is not None}, rel=1e-6)


def test_what_cannot_be_had_is_said_before_any_work(
    make_config: Callable[..., TrainConfig],
) -> None:
    config = make_config("log_with=[trackio]")
    with pytest.raises(ModuleNotFoundError, match=r"log_with: trackio is not installed: pip inst"):
        Trainer(config, quiet=True)
    assert not Path(config.output).exists()
    with pytest.raises(ValueError, match=r"knows no tracker 'wendb'; it knows .*wandb"):
        check_trackers(["wendb"])
