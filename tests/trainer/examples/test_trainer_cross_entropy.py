"""The example's model in transformers' Trainer, beside the model's own loss."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tolerances import TOLERANCES

SCRIPT = Path(__file__).parents[3] / "examples" / "trainer_cross_entropy.py"
CLOSE = TOLERANCES[("trl", "cpu", torch.float32)]  # of a loss without logits in another's trainer
pytestmark = pytest.mark.filterwarnings("ignore")  # of the host's own libraries


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def models(example: dict[str, Any]) -> tuple[Any, Any]:
    fused = example["Fused"](example["config"])
    own = example["LlamaForCausalLM"](example["config"])
    own.load_state_dict(fused.state_dict())
    return fused, own


@pytest.mark.parametrize("items", [None, 17])
def test_loss_and_gradients(example: dict[str, Any], items: int | None) -> None:
    fused, own = models(example)
    mask = (torch.arange(16) > 2 * torch.arange(8)[:, None] - 9).long()
    batch = {"input_ids": example["ids"], "labels": example["labels"], "attention_mask": mask}
    if items is not None:
        batch["num_items_in_batch"] = items
    one, other = fused(**batch)["loss"], own(**batch).loss
    torch.testing.assert_close(one, other, **CLOSE)
    one.backward()
    other.backward()
    for got, expected in zip(fused.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, **CLOSE)


def test_trainer(example: dict[str, Any], tmp_path: Path) -> None:
    """Three steps of two batches with other numbers of labels, and an evaluation."""
    logs = []
    arguments = example["TrainingArguments"](
        str(tmp_path),
        max_steps=3,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    for model in models(example):
        data = {"train_dataset": example["rows"], "eval_dataset": example["rows"]}
        trainer = example["Trainer"](model, arguments, **data)
        trainer.train()
        steps = [line for line in trainer.state.log_history if "loss" in line]
        logs.append([(line["loss"], line["grad_norm"]) for line in steps])
        logs[-1].append((trainer.evaluate()["eval_loss"], 0.0))
    assert len(logs[0]) == 4
    for got, expected in zip(*logs, strict=True):
        assert got == pytest.approx(expected, rel=CLOSE["rtol"], abs=CLOSE["atol"])
