"""A device that holds only so much: batches are halved, it is said, and results stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from suder.models import load_model
from suder.models.decoder.adapter import DecoderModel
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from tests.tolerances import TOLERANCES

SETTINGS = ("candidates=8", "inputs_per_round=6", "optimizer.steps=2")


@contextmanager
def small_device() -> Iterator[None]:
    """At most 120 tokens of targets in a forward, and 16 sequences at once while drawing."""
    forward, start = DecoderModel._forward, DecoderModel.start

    def little(self: DecoderModel, direction: Any, condition: Any, rows: Any, *rest: Any) -> Any:
        if sum(map(len, rows)) > 120:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory, as it were")
        return forward(self, direction, condition, rows, *rest)

    def few(self: DecoderModel, direction: Any, condition: Any, n: int, *rest: Any) -> Any:
        if len(condition) * n > 16:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory, as it were")
        return start(self, direction, condition, n, *rest)

    with (
        mock.patch.object(DecoderModel, "_forward", little),
        mock.patch.object(DecoderModel, "start", few),
    ):
        yield


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder / "model").named_parameters())


@pytest.mark.parametrize(
    ("model_folder", "objective", "rounds"),
    [("janus", "grpo", 2), ("janus", "simpo", 2), ("emu3", "simpo", 1), ("liquid", "grpo", 1)],
    indirect=["model_folder"],
)
def test_a_small_device_gives_the_same_weights(
    make_config: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str],
    model_folder: Path, objective: str, rounds: int,
) -> None:  # fmt: skip
    model = (f"model={model_folder}", f"rounds={rounds}")
    changes = (f"objective.name={objective}", *model, *SETTINGS)
    large = make_config(*changes, output="large")
    Trainer(large, quiet=True).run()
    small = make_config(*changes, output="small")
    trainer = Trainer(small)
    with small_device():
        trainer.run()
    assert "out of memory; from here on at most" in " ".join(capsys.readouterr().err.split())
    assert trainer.learner.batches.tokens < small.optimizer.tokens_per_batch
    assert trainer.learner.batches.rows <= 16
    expected = weights(Path(large.output))
    for name, weight in weights(Path(small.output)).items():
        torch.testing.assert_close(
            weight, expected[name], **TOLERANCES["gradient", "cpu", torch.float32]
        )


def test_what_never_fits_is_an_error(
    make_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*rest: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory, as it were")

    monkeypatch.setattr(DecoderModel, "_forward", nothing)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Trainer(make_config("rounds=1"), quiet=True).run()
