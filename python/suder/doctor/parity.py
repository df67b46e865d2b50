"""The same tokens as transformers' own `generate`, greedily, where that can be asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import JanusForConditionalGeneration

from suder.doctor.findings import Finding
from suder.doctor.patient import Patient
from suder.engine.sampling import sample
from suder.models.base import Condition, Direction, UnifiedModel, inference
from suder.models.janus.adapter import Janus
from suder_ext import linear_logprob

WORDS = 16
SCALE = 5.0
# Two tokens as likely as this are a tie, which rounding decides.
TIE = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}
LARGE = 3e8  # weights, from which a picture takes minutes on a CPU
ADVICE = "weights and config may not belong together; compare with the original checkpoint"


def parity(patient: Patient) -> Iterator[Finding]:
    """Greedy captions, and a guided picture, against `generate`."""
    model: Any = patient.model
    core = getattr(model, "core", None)
    if not isinstance(core, JanusForConditionalGeneration) or not isinstance(model, Janus):
        yield Finding(
            "fine", f"not compared: {type(model).__name__} has no `generate` of both kinds"
        )
        return
    yield _captions(model, core, patient)
    if patient.quick:
        yield Finding("fine", "no picture compared, as it was asked to be quick")
    elif model.device.type == "cpu" and patient.parameters > LARGE:
        yield Finding("fine", "no picture compared: on a CPU it would take minutes")
    else:
        yield _picture(model, core, patient)


def _captions(model: Any, core: Any, patient: Patient) -> Finding:
    pixels = model.pixels(list(patient.pairs.pictures[:2]))
    ids = model.prompts.question_ids[None].to(model.device)
    ours = sample(model, "understanding", pixels, greedy=True, max_new_tokens=WORDS).tokens
    theirs = [
        core.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels[i : i + 1],
            generation_mode="text",
            do_sample=False,
            max_new_tokens=WORDS,
        )[0, ids.shape[1] :]
        for i in range(len(pixels))
    ]
    said = "; ".join(repr(text) for text in model.detokenize(ours))
    return _compared(model, "understanding", pixels, ours, theirs, f"greedy captions ({said})", 1.0)


def _picture(model: Any, core: Any, patient: Patient) -> Finding:
    prompts = [patient.pairs.captions[0]]
    # What `generate` takes for the unconditional prompt.
    padded = Janus(core, model.processor, null_prompt="padded").eval()
    ids = padded.prompts.prompt_ids(prompts[0])[None].to(model.device)
    try:
        theirs = core.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_mode="image",
            do_sample=False,
            guidance_scale=SCALE,
        )
    except Exception as error:
        why = f"{type(error).__name__}: {error}"[:200]
        return Finding(
            "fine",
            f"a picture not compared: generate of transformers {transformers.__version__} raises "
            f"{why}",
        )
    ours = sample(padded, "generation", prompts, greedy=True, guidance=SCALE).tokens
    return _compared(padded, "generation", prompts, ours, theirs, "a greedy picture", SCALE)


def _compared(
    model: UnifiedModel,
    direction: Direction,
    condition: Condition,
    ours: Sequence[Tensor] | Tensor,
    theirs: Sequence[Tensor] | Tensor,
    what: str,
    guidance: float,
) -> Finding:
    """Equal, or different first where two tokens are as likely; what follows is another text."""
    worst, at = 0.0, ""
    for row, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        count = min(len(mine), len(other))
        apart = (mine[:count] != other[:count]).nonzero().flatten()
        if not len(apart):
            continue
        place = int(apart[0])
        both = [_logprob(model, direction, condition, row, mine, token, place, guidance)
                for token in (mine[place], other[place])]  # fmt: skip
        if both[0] - both[1] >= worst:
            worst, at = both[0] - both[1], f"token {place} of {len(mine)}"
    if not at:
        return Finding("fine", f"{what}: the tokens of transformers' generate")
    values = {"gap": worst}
    if worst <= TIE[model.dtype]:
        return Finding(
            "fine", f"{what}: those of generate up to {at}, a tie ({worst:.2g} nats)", values=values
        )
    return Finding("wrong", f"{what}: generate differs at {at} by {worst:.2g} nats", ADVICE, values)


def _logprob(
    model: UnifiedModel,
    direction: Direction,
    condition: Condition,
    row: int,
    tokens: Tensor,
    token: Tensor,
    place: int,
    guidance: float,
) -> float:
    """Of another token at one place of a sequence."""
    target = tokens.clone()
    target[place] = token
    given = torch.stack([target]) if direction == "generation" else [target]
    with inference(model):
        made = model(direction, condition[row : row + 1], given, 1, guidance)
        logprob = linear_logprob(made.hidden, made.weight, made.target, made.bias)
    return float(logprob[place])
