"""How text, pictures and questions are laid out as tokens, in both directions.

One place for training and use, so that a model is asked in the words it was taught. The layout is
that of the model's own processor: its chat template, which for Janus-Pro (and the embedded model)
reads as below, and, before a question about a picture, its system prompt, where it has one.

    understanding   BOS system <|User|>: <begin_of_image> image*I <end_of_image> Describe the image.
                    <|Assistant|>:  ->  caption EOS
    judging         the same with Does this picture show ...? Answer yes or no.  ->  yes EOS
    generation      BOS <|User|>: prompt  <|Assistant|>: <begin_of_image>  ->  image tokens
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import JanusProcessor
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

from suder.models.decoder.words import MARK, spelled

QUESTION = "Describe the image."
# Answered in one word; `suder.SelfJudge` fills in the text.
JUDGE = "Does this picture show {text}? Answer yes or no."


def understanding_ids(
    processor: JanusProcessor, question: str = QUESTION, system_prompt: str | None = None
) -> Tensor:
    """int64 `[L]`: BOS, system, the user's turn with I image placeholders, the assistant's opening.

    Args:
        system_prompt: None for the processor's own, which is none where it does not ask for one.
    """
    picture = (
        processor.image_start_token
        + processor.image_token * processor.num_image_tokens
        + processor.image_end_token
    )
    before, text, after = _chat(processor, question, picture=True)
    before, after = (part.replace(processor.image_token, picture) for part in (before, after))
    before = system_text(processor, system_prompt) + before
    return torch.tensor(spelled(processor).within(before, text, after), dtype=torch.int64)


def generation_ids(processor: JanusProcessor, prompt: str) -> Tensor:
    """int64 `[L]`: BOS, the user's turn, the assistant's opening, begin-of-image."""
    before, text, after = _chat(processor, prompt)
    after += processor.image_start_token
    return torch.tensor(spelled(processor).within(before, text, after), dtype=torch.int64)


def null_ids(processor: JanusProcessor, ids: Tensor) -> Tensor:
    """The unconditional prompt that guidance subtracts, same shape as `ids` (int64).

    All but BOS and begin-of-image become the pad token: the convention of Janus and of
    transformers' `generate`. The length stays, and is not masked, so the branch still knows how
    long the prompt was.
    """
    tokenizer = processor.tokenizer
    if tokenizer.pad_token_id is None:
        raise ValueError(
            "guidance: the tokenizer has no pad token, which the unconditional prompt is made of; "
            "name it in tokenizer_config.json"
        )
    start = tokenizer.convert_tokens_to_ids(processor.image_start_token)
    keep = (ids == tokenizer.bos_token_id) | (ids == start)
    return torch.where(keep, ids, torch.full_like(ids, tokenizer.pad_token_id))


def caption_ids(processor: JanusProcessor, text: str) -> Tensor:
    """int64 `[L]`: the words of a caption as they follow the assistant's opening, then EOS."""
    tokenizer = processor.tokenizer
    # The space is the template's own between "<|Assistant|>:" and the answer; byte-pair
    # vocabularies spell a word differently after one.
    ids = spelled(processor).alone(" " + text.strip())
    return torch.tensor([*ids, tokenizer.eos_token_id], dtype=torch.int64)


def system_text(processor: JanusProcessor, asked: str | None) -> str:
    """What stands before the user's turn, as the processor sets it off from that.

    Raises:
        ValueError: `asked` spells a token that means something else.
    """
    if asked is None:
        return DEFAULT_SYSTEM_PROMPT if processor.use_default_system_prompt else ""
    if not (text := asked.strip()):
        return ""
    if commands := spelled(processor).commands_in(text):
        raise ValueError(
            f"system_prompt: {commands[0]!r} in it is a token that means something else to this "
            "model; leave it out"
        )
    return text + "\n\n"


def _chat(processor: JanusProcessor, words: str, picture: bool = False) -> tuple[str, str, str]:
    """The whole prompt: what the template says before the user's words, they, and after them."""
    content: list[dict[str, str]] = [{"type": "image"}] if picture else []

    def rendered(text: str) -> str:
        turn = [*content, {"type": "text", "text": text}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": turn}]
        return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    before, mark, after = rendered(MARK).partition(MARK)
    if not mark:
        raise ValueError("processor: the chat template leaves out what the user says")
    whole = rendered(words)
    return before, whole[len(before) : len(whole) - len(after)], after
