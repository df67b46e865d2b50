"""Tokenizer and template: the very tokens that a question and a prompt become."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image
from transformers import JanusProcessor

from suder.doctor.findings import Finding
from suder.doctor.patient import Patient
from suder.models.janus.layout import QUESTION
from suder.testing import check_adapter

ADVICE = "compare chat_template.jinja with that of the model it was tuned from"
SPEAKERS = ("<|User|>", "<|Assistant|>")  # of every Janus


def words(patient: Patient) -> Iterator[Finding]:
    """A question and a prompt as ids; the processor's own ids; texts that come back."""
    model, caption = patient.model, patient.pairs.captions[0]
    prompts: Any = getattr(model, "prompts", None)
    processor: Any = getattr(model, "processor", None)
    tokenizer = getattr(processor, "tokenizer", processor)
    ids = model.tokenize([caption])[0].tolist()
    yield Finding("fine", f"caption: {_tokens(tokenizer, ids)}", values={"caption_ids": ids})
    if prompts is not None:
        question = prompts.question_ids.tolist()
        prompt = prompts.prompt_ids(caption).tolist()
        for name, said in (("question", question), ("prompt", prompt)):
            yield Finding(
                "fine",
                f"{name}, {len(said)} ids: {_tokens(tokenizer, said)}",
                values={f"{name}_ids": said},
            )
            yield from _template(tokenizer, name, said)
        yield from _unknown(tokenizer, question, prompts.prompt_ids("").tolist(), prompt)
        if isinstance(processor, JanusProcessor):
            yield from _of_the_processor(processor, caption, question, prompt)
    yield from _ends(model, tokenizer)
    texts = patient.pairs.captions[:8]
    report = check_adapter(
        model, ["texts", "commands", "too_long"], prompts=texts, strict=False, say=None
    )
    for outcome in report.outcomes:
        for problem in outcome.problems[:3]:
            yield Finding(
                "odd", f"{outcome.check}: {problem}", "compare tokenizer.json with the original's"
            )
        if outcome.measured and not outcome.problems:
            yield Finding("fine", f"{outcome.check}: {outcome.measured}")
    if not report.failed:
        yield Finding("fine", "texts come back, and those that spell special tokens are texts")


def _unknown(
    tokenizer: Any, question: Sequence[int], frame: Sequence[int], prompt: Sequence[int]
) -> Iterator[Finding]:
    """Words that the vocabulary does not know: the template's, or only those of what was asked."""
    unknown = tokenizer.unk_token_id
    for name, said in (("question", question), ("prompt", frame)):
        if unknown is not None and unknown in said:
            yield Finding(
                "wrong",
                f"the template of the {name} has words that the vocabulary does not know",
                ADVICE,
            )
    if unknown is not None and unknown in prompt and unknown not in frame:
        yield Finding(
            "odd",
            "the caption has words that the vocabulary does not know",
            "give pictures and captions of your own by --images DIR --prompts FILE",
        )


def _template(tokenizer: Any, name: str, ids: Sequence[int]) -> Iterator[Finding]:
    if tokenizer.bos_token_id is not None and tokenizer.bos_token_id not in ids[:1]:
        yield Finding("odd", f"the {name} does not begin with {tokenizer.bos_token!r}", ADVICE)
    said = set(tokenizer.convert_ids_to_tokens(list(ids)))
    known = [one for one in SPEAKERS if one in tokenizer.get_vocab()]
    if missing := [one for one in known if one not in said]:
        yield Finding(
            "wrong",
            f"the template of the {name} leaves out {', '.join(missing)}, which it has",
            ADVICE,
        )


def _of_the_processor(
    processor: Any, caption: str, question: Sequence[int], prompt: Sequence[int]
) -> Iterator[Finding]:
    """What the checkpoint's own processor makes of the same question and prompt."""
    size = int(getattr(processor.image_processor, "size", {}).get("height", 32))
    picture = Image.fromarray(np.zeros((size, size, 3), dtype=np.uint8))
    for name, ours, text, images in (
        ("question", question, QUESTION, [picture]),
        ("prompt", prompt, caption, None),
    ):
        turn = [{"type": "image"}] if images else []
        messages = [{"role": "user", "content": [*turn, {"type": "text", "text": text}]}]
        mode = "text" if images else "image"
        try:
            said = processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
            made = processor(text=said, images=images, generation_mode=mode, return_tensors="pt")
            theirs = made["input_ids"][0].tolist()
        except Exception as error:
            why = f"{type(error).__name__}: {error}"[:200]
            yield Finding("odd", f"the checkpoint's own processor raises for a {name}: {why}")
            continue
        if list(ours) == theirs:
            yield Finding("fine", f"the checkpoint's own processor gives the same {name}")
        else:
            yield Finding(
                "odd",
                f"the checkpoint's own processor gives a {name} of {len(theirs)} ids, suder one of "
                f"{len(ours)} (a default system prompt?)",
                values={f"{name}_ids_of_the_processor": theirs},
            )


def _ends(model: Any, tokenizer: Any) -> Iterator[Finding]:
    config = getattr(getattr(model, "core", None), "generation_config", None)
    ends = getattr(config, "eos_token_id", None)
    known = {ends} if isinstance(ends, int) else set(ends or ())
    if known and model.eos_token_id not in known:
        yield Finding(
            "odd",
            f"texts end in {model.eos_token_id} ({tokenizer.eos_token!r}) by the tokenizer, in "
            f"{sorted(known)} by generation_config.json",
            "make the two agree; suder goes by the tokenizer",
        )


def _tokens(tokenizer: Any, ids: Sequence[int]) -> str:
    """Tokens by name, repeated ones with their number."""
    runs = [
        (name, len(list(run))) for name, run in groupby(tokenizer.convert_ids_to_tokens(list(ids)))
    ]
    return " ".join(name if count == 1 else f"{name} (x {count})" for name, count in runs)
