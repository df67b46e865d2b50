"""suder in lmms-eval, by its documented calls: a stand-in has its registry and base class."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from suder.engine.sampling import sample
from suder.inputs.as_seen import side_by_side
from tests.tolerances import TOLERANCES
from tests.trainer.conftest import random_janus
from tests.trainer.families import JUDGING

BATCH = TOLERANCES["batch", "cpu", torch.float32]
ROOT = Path(__file__).parents[3]
QUESTIONS = ("is it a circle ?", "two circles ?", "a red square ?", "is it blue ?")


@dataclass(frozen=True)
class ModelManifest:
    """As of lmms_eval.models.registry_v2."""

    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


class Lmms:
    """As of lmms_eval.api.model; the abstract methods are those that it names."""

    is_simple = True

    def __init__(self) -> None:
        self._rank, self._world_size = 0, 1
        self.task_dict: dict[str, Any] = {}
        self.kept: list[Any] = []
        self.cache_hook = types.SimpleNamespace(add_partial=lambda *one: self.kept.append(one))


@dataclass
class Instance:
    args: tuple[Any, ...]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as lmms-eval imports it."""
    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "lmms_eval.models")
    for name in (*names, "lmms_eval.models.registry_v2"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    vars(sys.modules["lmms_eval.api.model"])["lmms"] = Lmms
    vars(sys.modules["lmms_eval.models.registry_v2"])["ModelManifest"] = ModelManifest
    monkeypatch.delitem(sys.modules, "suder.integrations.lmms_eval", raising=False)
    yield importlib.import_module("suder.integrations.lmms_eval")
    sys.modules.pop("suder.integrations.lmms_eval", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("lmms")
    random_janus(words=(*JUDGING, "it", "is")).save(where)
    return where


@pytest.fixture
def made(plugin: Any, folder: Path) -> Any:
    """Loaded as lmms-eval does: all values of --model_args, and what it adds."""
    model = plugin.Suder(pretrained=str(folder), batch_size="3", device="cpu", max_batch_size=None)
    rng = np.random.default_rng(0)
    docs = [
        {"image": [Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))] * (1 + (i == 3))}
        for i in range(4)
    ]
    model.task_dict = {"task": {"test": docs}}
    return model


def visuals(doc: dict[str, Any]) -> list[Any]:
    images: list[Any] = doc["image"]
    return images


def asked(place: int, *more: Any, context: str = "") -> Instance:
    return Instance((context or QUESTIONS[place], *more, visuals, place, "task", "test"))


def pictures_of(model: Any) -> Any:
    return model.model.pixels([
        side_by_side([np.asarray(one) for one in visuals(doc)])
        for doc in model.task_dict["task"]["test"]
    ])  # fmt: skip


def test_the_entry_point_is_what_the_registry_takes(plugin: Any) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'entry-points."lmms_eval.models"\]\nsuder = "([\w.]+):(\w+)"', text)
    assert found
    payload = getattr(importlib.import_module(found[1]), found[2])
    manifest = payload()
    assert isinstance(manifest, ModelManifest)
    assert manifest.model_id == "suder"
    assert manifest.simple_class_path
    module, _, name = manifest.simple_class_path.rpartition(".")
    of = getattr(importlib.import_module(module), name)
    assert issubclass(of, Lmms)
    assert of.is_simple
    for method in ("loglikelihood", "generate_until", "generate_until_multi_round"):
        assert callable(getattr(of, method))


def test_it_is_importable_without_lmms_eval() -> None:
    code = (
        "import sys; sys.modules['lmms_eval'] = None\n"
        "from suder.integrations.lmms_eval import Suder\n"
        "print(Suder.__mro__[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "object" in done.stdout


def test_generate_until(made: Any) -> None:
    """The sampler's own greedy answers, whatever the batches; several pictures side by side."""
    long, short = ({"max_new_tokens": n, "until": ["circle"], "do_sample": False} for n in (6, 2))
    requests = [asked(i, (long, short, long, long)[i]) for i in range(4)]
    requests[2] = asked(2, long, context=f"<image>\n{QUESTIONS[2]}")
    got = made.generate_until(requests)
    drawn = sample(
        made.model, "understanding", pictures_of(made), greedy=True, max_new_tokens=6,
        questions=QUESTIONS,
    )  # fmt: skip
    for place, ids in enumerate(drawn.tokens):
        text = made.model.detokenize([ids[:2] if place == 1 else ids])[0]
        assert got[place] == text.partition("circle")[0].strip()
    assert len(made.kept) == 4
    assert made.kept[0][0] == "generate_until"
    assert long["until"] == ["circle"]  # requests are the evaluator's, and stay as they are
    warm = [asked(i, {"max_new_tokens": 6, "temperature": 2.0}) for i in range(4)]
    assert made.generate_until(warm) == made.generate_until(warm)
    assert made.generate_until(warm) != made.generate_until([asked(i, long) for i in range(4)])


@pytest.mark.parametrize("kind", ["loss", "logprob"])
def test_loglikelihood(made: Any, kind: str) -> None:
    """The mean loss of each continuation, which the evaluator's multiple choice takes the least
    of, or the sum of log p; and whether greedy decoding says it."""
    made.loglikelihood_as = kind
    drawn = sample(
        made.model, "understanding", pictures_of(made), greedy=True, max_new_tokens=2,
        questions=QUESTIONS,
    )  # fmt: skip
    greedy = made.model.detokenize(drawn.tokens)
    targets: list[str | Callable[[Any], str]] = [
        greedy[0], " a red circle", lambda doc: "two", greedy[3],
    ]  # fmt: skip
    got = made.loglikelihood([asked(i, target) for i, target in enumerate(targets)])
    texts = [greedy[0], "a red circle", "two", greedy[3]]
    for place, (value, said) in enumerate(got):
        ids = made.model.tokenize([texts[place]])[0][:-1]
        pixels = pictures_of(made)[place : place + 1]
        with torch.no_grad():
            hidden = made.model("understanding", pixels, [ids], questions=[QUESTIONS[place]])
            logits = hidden.hidden.double() @ hidden.weight.double().T
        logprob = logits.log_softmax(-1).gather(-1, ids[:, None])
        expected = float(-logprob.mean() if kind == "loss" else logprob.sum())
        assert value == pytest.approx(expected, rel=BATCH["rtol"], abs=3 * BATCH["atol"])
        assert said == bool((logits.argmax(-1) == ids).all())
    assert {said for _, said in got} == {True, False}
    assert all(isinstance(value, float) for value, _ in got)


def test_what_it_cannot_do_is_said(plugin: Any, made: Any, monkeypatch: Any) -> None:
    made.task_dict["task"]["test"][0] = {"image": []}
    with pytest.raises(ValueError, match="task, document 0: it has no picture"):
        made.generate_until([asked(0, {})])
    with pytest.raises(NotImplementedError, match="one question"):
        made.generate_until_multi_round([])
    with pytest.raises(ValueError, match="'loss' or 'logprob'"):
        plugin.Suder(loglikelihood_as="sum")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="one process"):
        plugin.Suder()
