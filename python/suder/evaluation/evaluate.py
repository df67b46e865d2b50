"""Judges a model in both directions on inputs it has not seen: `evaluate(model, split=...)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from suder.engine.sampling import sample
from suder.evaluation.progress import progress_bar
from suder.evaluation.result import Evaluation, Items
from suder.evaluation.task import Task, shapes_task
from suder.run.origin import fingerprint

SHOWN = 64  # pictures kept of each direction, for reports


def evaluate(
    model: Any,
    *,
    split: str = "test",
    n: int = 1000,
    seed: int = 0,
    greedy: bool = True,
    temperature: float = 1.0,
    guidance: float = 1.0,
    max_new_tokens: int | None = None,
    batch_size: int = 256,
    task: Task | None = None,
    progress: bool = True,
    about: dict[str, str] | None = None,
) -> Evaluation:
    """Draw a picture for each prompt and a caption for each picture, and judge them.

    Args:
        model: an adapter from `suder.load_model`.
        split: of the shapes world: "supervised", "unlabelled" or "test".
        n: prompts, and pictures.
        seed: of the inputs and of sampling; two models with one seed are judged on the same inputs
            with the same random numbers, so their items can be paired.
        greedy: the most likely token always (pictures: at `task.nearly_greedy` where the task has
            one); otherwise sample at `temperature`.
        guidance: classifier-free guidance scale while drawing.
        max_new_tokens: longest caption; None for the model's own.
        task: other inputs and judges than the shapes world (`split` and `n` then have no use).
        progress: show a bar.
        about: what `about_model` says of the model, where it has been asked already.
    """
    task = shapes_task(split, n, seed) if task is None else task
    how: dict[str, Any] = {"greedy": greedy} if greedy else {"temperature": temperature}
    with progress_bar(progress) as bar, torch.inference_mode():
        label = f"{task.name} {'greedy' if greedy else f't={temperature:g}'}"
        total = len(task.prompts) + len(task.pictures)
        bar_id = bar.add_task(label, total=total)

        def advance(count: int) -> None:
            bar.advance(bar_id, count)

        drawing = dict(how)
        if greedy and task.nearly_greedy is not None:
            drawing = {"temperature": task.nearly_greedy}
        generation = _draw(
            model, task, {**drawing, "guidance": guidance}, seed, batch_size, advance
        )
        how["max_new_tokens"] = max_new_tokens
        captions = _caption(model, task, how, seed, batch_size, advance)
    settings = settings_of(
        model,
        task,
        seed=seed,
        greedy=greedy,
        temperature=temperature,
        guidance=guidance,
        max_new_tokens=max_new_tokens,
        about=about,
    )
    return Evaluation(generation, captions, settings)


def settings_of(
    model: Any,
    task: Task,
    *,
    seed: int = 0,
    greedy: bool = True,
    temperature: float = 1.0,
    guidance: float = 1.0,
    max_new_tokens: int | None = None,
    about: dict[str, str] | None = None,
) -> dict[str, Any]:
    """All that decides an evaluation's result, as it is kept with it; arguments of `evaluate`."""
    nearly = greedy and task.nearly_greedy is not None
    return {
        "task": task.name,
        "inputs": task.digest(),
        "seed": seed,
        "greedy": greedy,
        "temperature": temperature,
        **({"nearly_greedy": task.nearly_greedy} if nearly else {}),
        "guidance": guidance,
        "max_new_tokens": max_new_tokens or model.max_new_tokens,
        **model.asks,
        **(about_model(model) if about is None else about),
    }


def about_model(model: Any) -> dict[str, str]:
    """A hash of all weights, and one of the files beside them; about a second a gigabyte."""
    parts = fingerprint(model)
    told = {"weights": "", "files": ""}
    for name, digest in sorted(parts.items()):
        told["files" if "." in name else "weights"] += f"{name} {digest}\n"
    return {name: sha256(text.encode()).hexdigest() for name, text in told.items()}


def _draw(
    model: Any,
    task: Task,
    how: dict[str, Any],
    seed: int,
    batch_size: int,
    advance: Callable[[int], None],
) -> Items:
    verdicts: list[dict[str, np.ndarray]] = []
    kept: list[np.ndarray] = []
    for items in _batches(len(task.prompts), batch_size):
        asked = [task.prompts[item] for item in items]
        # A greedy drawing depends on its prompt alone, so repeated prompts are drawn once.
        distinct = list(dict.fromkeys(asked)) if "greedy" in how else asked
        tokens = sample(model, "generation", distinct, seed=_seed(seed, items[0]), **how).tokens
        pictures = np.asarray(model.decode(tokens).cpu())
        if "greedy" in how:
            pictures = pictures[[distinct.index(prompt) for prompt in asked]]
        verdicts.append(task.judge_pictures(pictures, items))
        kept.extend(pictures[: max(0, SHOWN - len(kept))])
        advance(len(items))
    return Items(
        inputs=list(task.prompts),
        answers=[],
        categories=list(task.prompt_categories),
        clusters=list(task.prompt_clusters),
        judged=_joined(verdicts),
        pictures=np.stack(kept),
    )


def _caption(
    model: Any,
    task: Task,
    how: dict[str, Any],
    seed: int,
    batch_size: int,
    advance: Callable[[int], None],
) -> Items:
    answers: list[str] = []
    verdicts: list[dict[str, np.ndarray]] = []
    for items in _batches(len(task.pictures), batch_size):
        pixels = model.pixels([task.pictures[item] for item in items])
        drawn = sample(model, "understanding", pixels, seed=_seed(seed, items[0]), **how)
        captions = model.detokenize(drawn.tokens)
        answers.extend(captions)
        verdicts.append(task.judge_captions(captions, items))
        advance(len(items))
    return Items(
        inputs=list(task.references),
        answers=answers,
        categories=list(task.picture_categories),
        clusters=list(task.picture_clusters),
        judged=_joined(verdicts),
        pictures=np.stack(list(task.pictures[:SHOWN])),
    )


def _batches(count: int, size: int) -> list[range]:
    return [range(start, min(count, start + size)) for start in range(0, count, size)]


def _seed(seed: int, first: int) -> int:
    """A seed of the batch's own, so that batches of one evaluation do not share random numbers."""
    return int(np.random.SeedSequence([seed, first]).generate_state(1)[0])


def _joined(verdicts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in verdicts]) for name in verdicts[0]}
