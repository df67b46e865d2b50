"""ms-swift's own tables of losses and rewards, which our plug-ins enter."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import suder
from suder.integrations import swift as rewards
from suder_ext.integrations import swift as losses
from tests.tolerances import TOLERANCES

Host = Callable[[str], ModuleType]


def test_loss(host: Host) -> None:
    """Made and called as its trainer does, beside its own cross entropy."""
    table: Any = host("swift.loss").loss_map
    table["suder"] = losses.CrossEntropyLoss
    trainer = SimpleNamespace(template=SimpleNamespace(sequence_parallel_size=1))
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 6, 11), torch.randint(11, (2, 6))
    labels[:, :2] = -100
    results = []
    for name in ("cross_entropy", "suder"):
        leaf = logits.clone().requires_grad_()
        loss = table[name](SimpleNamespace(), trainer)
        value = loss(SimpleNamespace(logits=leaf), labels, num_items_in_batch=torch.tensor(8))
        value.backward()
        results.append((value.detach(), leaf.grad))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, **TOLERANCES[("trl", "cpu", torch.float32)])


def test_reward(host: Host) -> None:
    table: Any = host("swift.rewards").orms
    model = suder.load_model("shapes")
    rewards.register("dual_reward", model)
    drawn = model.decode(torch.zeros(2, model.num_image_tokens, dtype=torch.long))
    asked = {"images": list(drawn), "messages": [[], []], "trainer_state": None}
    captions = ["a red circle", "a blue square"]
    got = table["dual_reward"](args=None)(captions, **asked)
    expected = suder.DualReward(model).understanding(list(drawn), captions).tolist()
    assert got == pytest.approx(expected, rel=1e-5)
