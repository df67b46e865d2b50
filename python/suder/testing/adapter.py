"""`check_adapter`: the contract of `suder.models.base`, check by check."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from suder.models.base import UnifiedModel
from suder.models.load import load_model
from suder.settings.learning import Lora
from suder.testing import copies, likelihood, pictures, questions, texts, training
from suder.testing.findings import AdapterError, AdapterReport, Findings, Outcome, Skipped
from suder.testing.subject import Subject

Check = Callable[[Subject, Findings], None]

# Names, and what each says in a sentence: the docstring of the check.
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        pictures.pictures,
        pictures.vq_round_trip,
        texts.texts,
        texts.commands,
        texts.too_long,
        training.no_dropout,
        likelihood.batch,
        likelihood.group,
        likelihood.guidance,
        likelihood.step_by_step,
        likelihood.take,
        likelihood.ratio,
        questions.questions,
        training.gradients,
        training.recomputed,
        copies.frozen_copy,
        copies.inference_copy,
        copies.lora,
        copies.save_and_load,
    )
}
# Differ in length, and are spelled by vocabularies of a dozen words.
PROMPTS = ("a red circle", "a red square and a blue circle", "a blue square")


def check_adapter(
    model: UnifiedModel,
    checks: Sequence[str] | None = None,
    *,
    prompts: Sequence[str] = PROMPTS,
    images: Sequence[Any] | None = None,
    load: Callable[[Path], UnifiedModel] | None = None,
    lora: Lora | None = None,
    strict: bool = True,
    say: Callable[[str], None] | None = print,
) -> AdapterReport:
    """Checks that an adapter keeps the contract that sampling, rewards and training rely on.

    A plain call: from a script, or as the whole of a pytest test. The adapter is used through the
    methods of `UnifiedModel` alone. It may have random weights; in float32 the limits are sharp,
    in 16 bits they leave room for rounding. What a check changes it puts back: mode, gradients and
    weights are as before, bit for bit.

    Memory: the model twice, and a copy and gradients of what is trained. Time: about ten forwards
    and drawing a dozen pictures.

    Args:
        model: the adapter, on any device.
        checks: names from `CHECKS`; None: all.
        prompts: three or more texts of different length that the vocabulary spells.
        images: as many pictures as prompts (PIL, or uint8 `[H, W, 3]`); None: drawn here.
        load: reads a folder that `model.save` wrote; None: `load_model` without options.
        lora: adapters to try; None: of rank 4, on the usual layers.
        strict: raise where a check fails.
        say: is given a line as each check ends; None: silence.

    Returns:
        AdapterReport: what passed, what failed, and the numbers.

    Raises:
        AdapterError: an AssertionError that names every check that failed, with the numbers.
        ValueError: no such check; too few prompts or pictures.
    """
    chosen = list(CHECKS if checks is None else checks)
    if unknown := [name for name in chosen if name not in CHECKS]:
        raise ValueError(f"checks: no {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    if len(prompts) < 3 or (images is not None and len(images) < len(prompts)):
        raise ValueError("prompts: takes three or more, and images as many")

    def plainly(folder: Path) -> UnifiedModel:
        return load_model(folder, model.device, model.dtype)

    subject = Subject(model, prompts, images, load or plainly, lora or Lora(rank=4))
    training = model.training
    model.eval()
    outcomes = []
    try:
        for name in chosen:
            outcomes.append(_made(name, subject))
            if say is not None:
                say(str(outcomes[-1]))
    finally:
        model.train(training)
    report = AdapterReport(tuple(outcomes))
    if strict and report.failed:
        raise AdapterError(report)
    return report


def _made(name: str, subject: Subject) -> Outcome:
    found = Findings()
    try:
        with torch.random.fork_rng(devices=[]):
            CHECKS[name](subject, found)
    except Skipped as why:
        return Outcome(name, skipped=str(why))
    except Exception as error:  # whatever an adapter raises is a finding
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        found.problems.append(f"raised {type(error).__name__} at {place}: {error}")
    return found.outcome(name, CHECKS[name].__doc__ or "")
