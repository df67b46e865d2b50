"""Base and tuned, one after the other, asked the same questions."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from suder.evaluation.answering.answer import LONGEST, Answer, Answering, By
from suder.evaluation.answering.folder import answer_all, digest_of_questions
from suder.evaluation.answering.question import Asked
from suder.evaluation.sides import Sides
from suder.inputs.files import DataError
from suder.models import load_model
from suder.models.unknown import not_known
from suder.run.exported import digest_of_model
from suder.run.origin import fingerprint
from suder.storage.fingerprint import versions


class Asking(NamedTuple):
    """How questions are asked; see `Answering`."""

    images: Path | None = None
    by: By = "likelihood"
    wrap: str | None = None
    max_new_tokens: int = LONGEST
    system_prompt: str | None = None
    device: str = "cpu"
    dtype: torch.dtype = torch.float32


class Answered(NamedTuple):
    """
    Attributes:
        sides: of each model, its answers by key.
        same: whether both are one model, asked the same way.
        missing: questions that other processes have yet to answer.
    """

    sides: dict[str, dict[str, Answer]]
    same: bool
    missing: int


def answer_sides(
    suite: str,
    asked: Asked,
    sides: Sides,
    asking: Asking,
    out: Path | None = None,
    shard: tuple[int, int] = (0, 1),
    step: Callable[[str, int, int], None] = lambda side, done, total: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Answered:
    """Every side's answers, into `out/base` and `out/tuned`; see `answer_all`.

    Args:
        suite: its name, for the manifest.
        step: told of the side, of questions done and of all.
        warn: told of words that a model does not know.

    Raises:
        DataError: no question could be answered.
    """
    how = {
        "suite": suite,
        "questions_hash": digest_of_questions(asked.questions, asking.wrap),
        "by": asking.by,
        "max_new_tokens": asking.max_new_tokens,
    }
    answers: dict[str, dict[str, Answer]] = {}
    manifests = []
    for side, name in sides.models.items():
        options = dict(sides.options)
        if asking.system_prompt is not None:
            options["system_prompt"] = asking.system_prompt
        model = load_model(name, device=asking.device, dtype=asking.dtype, **options)
        if warning := not_known(model, [one.asked(asking.wrap) for one in asked.questions]):
            warn(f"{name}: {warning}")
        manifest: dict[str, Any] = {
            **how,
            "model_hash": digest_of_model(fingerprint(model)),
            "system_prompt": model.asks.get("system_prompt"),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
        }
        manifests.append(manifest)
        told = {**manifest, "model": name, "versions": versions()}
        answering = Answering(model, asking.images, asking.by, asking.wrap, asking.max_new_tokens)
        folder = None if out is None else out / side
        for done, total, known in answer_all(asked.questions, answering, folder, told, shard):
            step(side, done, total)
            answers[side] = known
        if answers[side] and all("skipped" in one for one in answers[side].values()):
            first = next(one for one in asked.questions if one.key in answers[side])
            why = answers[side][first.key]["skipped"]
            raise DataError(f"no question could be answered: {first.row.where}: {why}")
        del model, answering  # the next may need its room
        gc.collect()
    missing = max(sum(one.key not in of for one in asked.questions) for of in answers.values())
    return Answered(answers, len(manifests) == 2 and manifests[0] == manifests[1], missing)
