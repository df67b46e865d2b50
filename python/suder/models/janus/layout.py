"""How text, pictures and questions are laid out as tokens, in both directions.

One place for training and use, so that a model is asked in the words it was taught. The layout is
that of the model's own chat template, which for Janus-Pro (and the embedded model) reads

    understanding   BOS <|User|>: <begin_of_image> image*I <end_of_image> Describe the image.
                    <|Assistant|>:  ->  caption EOS
    generation      BOS <|User|>: prompt  <|Assistant|>: <begin_of_image>  ->  image tokens
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import JanusProcessor

QUESTION = "Describe the image."


def understanding_text(processor: JanusProcessor, question: str = QUESTION) -> str:
    """The whole prompt of a caption, its picture standing as I placeholder tokens."""
    turn = [{"type": "image"}, {"type": "text", "text": question}]
    text = _chat(processor, turn)
    picture = (
        processor.image_start_token
        + processor.image_token * processor.num_image_tokens
        + processor.image_end_token
    )
    return text.replace(processor.image_token, picture)


def generation_text(processor: JanusProcessor, prompt: str) -> str:
    """The whole prompt of a picture, begin-of-image token included."""
    return _chat(processor, [{"type": "text", "text": prompt}]) + processor.image_start_token


def understanding_ids(processor: JanusProcessor, question: str = QUESTION) -> Tensor:
    """int64 `[L]`: BOS, the user's turn with I image placeholders, and the assistant's opening."""
    return _ids(processor, understanding_text(processor, question))


def generation_ids(processor: JanusProcessor, prompt: str) -> Tensor:
    """int64 `[L]`: BOS, the user's turn, the assistant's opening, begin-of-image."""
    return _ids(processor, generation_text(processor, prompt))


def null_ids(processor: JanusProcessor, ids: Tensor) -> Tensor:
    """The unconditional prompt that guidance subtracts, same shape as `ids` (int64).

    All but BOS and begin-of-image become the pad token: the convention of Janus and of
    transformers' `generate`. The length stays, and is not masked, so the branch still knows how
    long the prompt was.
    """
    tokenizer = processor.tokenizer
    start = tokenizer.convert_tokens_to_ids(processor.image_start_token)
    keep = (ids == tokenizer.bos_token_id) | (ids == start)
    return torch.where(keep, ids, torch.full_like(ids, tokenizer.pad_token_id))


def caption_ids(processor: JanusProcessor, text: str) -> Tensor:
    """int64 `[L]`: the words of a caption as they follow the assistant's opening, then EOS."""
    tokenizer = processor.tokenizer
    # The space is the template's own between "<|Assistant|>:" and the answer; byte-pair
    # vocabularies spell a word differently after one.
    ids = tokenizer(" " + text.strip(), add_special_tokens=False)["input_ids"]
    return torch.tensor([*ids, tokenizer.eos_token_id], dtype=torch.int64)


def _chat(processor: JanusProcessor, content: list[dict[str, str]]) -> str:
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def _ids(processor: JanusProcessor, text: str) -> Tensor:
    return torch.tensor(processor.tokenizer(text)["input_ids"], dtype=torch.int64)
