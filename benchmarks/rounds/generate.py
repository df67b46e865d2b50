"""transformers' `generate` on the same model, where it works, and whether it says the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from suder.engine.sampling import sample
from suder.models import Janus

from .machine import wait

NEW_TOKENS = 16


def beside(model: Janus, pixels: torch.Tensor, prompts: list[str], guidance: float) -> list[str]:
    """A line for texts, greedy so that tokens can be compared, and one for pictures."""
    lines = [_told("texts, greedy", model, lambda: _texts(model, pixels))]
    return [*lines, _told("pictures", model, lambda: _pictures(model, prompts, guidance))]


def _told(what: str, model: Janus, run: Callable[[], str]) -> str:
    try:
        with torch.no_grad(), model.computing():
            return f"generate, {what}: {run()}"
    except Exception as error:  # another project's code, in versions that are not known yet
        why = (str(error).splitlines() or [""])[0]
        return f"generate, {what}: raised {type(error).__name__}: {why[:160]}"


def _texts(model: Janus, pixels: torch.Tensor) -> str:
    ids = model.prompts.question_ids.to(model.device).expand(len(pixels), -1)
    given: dict[str, Any] = {"pixel_values": pixels, "attention_mask": torch.ones_like(ids)}
    ours, seconds = _timed(model, lambda: _ours(model, pixels))
    theirs, their_seconds = _timed(
        model,
        lambda: model.core.generate(
            ids, **given, generation_mode="text", do_sample=False, max_new_tokens=NEW_TOKENS,
            eos_token_id=model.eos_token_id, pad_token_id=model.eos_token_id,
        ),
    )  # fmt: skip
    written = theirs[:, -NEW_TOKENS:] if theirs.shape[1] > NEW_TOKENS else theirs
    if theirs.shape[1] > ids.shape[1]:
        written = theirs[:, ids.shape[1] :]
    same = total = 0
    for mine, other in zip(ours, written, strict=True):
        length = min(len(mine), len(other))
        same, total = same + int((mine[:length] == other[:length]).sum()), total + length
    return (
        f"{their_seconds:.2f} s for {len(pixels)} of {NEW_TOKENS} tokens, ours {seconds:.2f} s; "
        f"{same} of {total} tokens are the same"
    )


def _ours(model: Janus, pixels: torch.Tensor) -> list[torch.Tensor]:
    drawn = sample(model, "understanding", pixels, greedy=True, max_new_tokens=NEW_TOKENS)
    return list(drawn.tokens)


def _pictures(model: Janus, prompts: list[str], guidance: float) -> str:
    ids = [model.prompts.prompt_ids(prompt) for prompt in prompts]
    longest = max(map(len, ids))
    pad = model.processor.tokenizer.pad_token_id
    rows = [torch.cat([row.new_full((longest - len(row),), pad), row]) for row in ids]
    kept = [torch.arange(longest) >= longest - len(row) for row in ids]
    _, seconds = _timed(
        model,
        lambda: model.core.generate(
            torch.stack(rows).to(model.device),
            attention_mask=torch.stack(kept).long().to(model.device),
            generation_mode="image", do_sample=True, guidance_scale=guidance,
        ),
        warm=False,
    )  # fmt: skip
    _, ours = _timed(model, lambda: sample(model, "generation", prompts, guidance=guidance))
    return f"{seconds:.2f} s for {len(prompts)}, ours {ours:.2f} s"


def _timed(model: Janus, run: Callable[[], Any], warm: bool = True) -> tuple[Any, float]:
    if warm:
        run()
    wait(model.device)
    begin = time.perf_counter()
    result = run()
    wait(model.device)
    return result, time.perf_counter() - begin
