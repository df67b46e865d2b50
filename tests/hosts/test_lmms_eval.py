"""lmms-eval's own registry and base class: `--model suder`, asked through its requests."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from suder.models.find import find_model

Host = Callable[[str], ModuleType]


def test_registry_and_requests(host: Host) -> None:
    models: Any = host("lmms_eval.models")
    made: Any = models.get_model("suder", force_simple=True)
    assert issubclass(made, host("lmms_eval.api.model").lmms)
    model = made(pretrained=str(find_model("shapes").folder), device="cpu", batch_size="2")
    docs = [{"image": Image.fromarray(np.full((32, 32, 3), 40 * i, np.uint8))} for i in range(3)]
    model.task_dict = {"task": {"test": docs}}
    instance: Any = host("lmms_eval.api.instance").Instance
    metadata = {"task": "task", "doc_id": 0, "repeats": 1}
    short = {"max_new_tokens": 5}
    asked = [
        instance("generate_until", ("a", short, show, i, "task", "test"), 0, metadata)
        for i in range(3)
    ]
    answers = model.generate_until(asked)
    assert len(answers) == 3
    assert all(isinstance(one, str) for one in answers)
    scored = [
        instance("loglikelihood", ("a", "a red circle", show, i, "task", "test"), 0, metadata)
        for i in range(3)
    ]
    for loss, greedy in model.loglikelihood(scored):
        assert loss > 0
        assert not greedy or isinstance(greedy, bool)


def show(doc: dict[str, Any]) -> list[Any]:
    return [doc["image"]]
