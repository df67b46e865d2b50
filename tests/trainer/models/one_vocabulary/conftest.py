"""Emu3 and Liquid beside what transformers itself makes of the same tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from suder.models.one_vocabulary.adapter import OneVocabulary
from suder.models.one_vocabulary.emu3 import ROW_END
from tests.trainer.families import SIDE, small_emu3, small_liquid

MAKE: dict[str, Callable[..., Any]] = {"emu3": small_emu3, "liquid": small_liquid}


@dataclass(frozen=True)
class Published:
    """Sequences as the checkpoint's own processor and scripts lay them out, and a float64 forward.

    Attributes:
        core: the model in float64.
    """

    model: Any
    core: Any

    @property
    def emu3(self) -> bool:
        return "Emu3" in type(self.model).__name__

    def prompt(self, text: str) -> list[int]:
        processor = self.model.processor
        if self.emu3:
            given = processor(
                text=[text], return_for_image_generation=True, ratio="1:1", image_area=SIDE**2
            )
            ids: list[int] = given["input_ids"][0]
            return ids
        words = (
            "<unconditional>"
            if text == ""
            else f"{text} Generate an image based on this description."
        )
        return list(processor(f"{words}<boi>")["input_ids"])

    def question(self, pixels: Tensor) -> list[int]:
        """Of one picture."""
        processor = self.model.processor
        codes = self.model.encode(pixels[None])[0]
        if not self.emu3:
            start, end = (
                processor(text)["input_ids"]
                for text in ("<boi>", "<eoi>The caption of this image is:")
            )
            return [*start, *(codes + len(processor)).tolist(), *end[1:]]
        turns = [
            {
                "role": "system",
                "content": [{"type": "text", "text": "You are a helpful assistant."}],
            },
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": "Describe the image."}],
            },
        ]
        text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        text = text.replace(
            processor.image_token, processor.replace_image_token({"image_sizes": [(SIDE, SIDE)]}, 0)
        )
        ids = torch.tensor(processor.tokenizer(processor.bos_token + text)["input_ids"])
        own = self.model.core.model.get_image_tokens(pixels[None], torch.tensor([[SIDE, SIDE]]))
        ids[ids == processor.image_token_id] = own.long()
        return ids.tolist()

    def drawn(self, tokens: Tensor) -> list[int]:
        """Of VQ tokens `[I]`, as the model reads what it has drawn."""
        if not self.emu3:
            return (tokens + len(self.model.processor)).tolist()
        mapping = self.model.core.model.vocabulary_mapping
        side = self.model.grid
        return mapping.convert_img2bpe(tokens.view(side, side)).flatten()[:-1].tolist()

    def logits(self, before: list[int], target: list[int]) -> Tensor:
        """`[L, V]` at the positions that predict the targets."""
        ids = torch.tensor([[*before, *target]])
        logits: Tensor = self.core(input_ids=ids).logits[0, len(before) - 1 : -1]
        return logits

    def image_logits(self, prompt: str, tokens: Tensor) -> Tensor:
        """`[I, K]`: rows of VQ tokens only, at the positions of VQ tokens only."""
        images = self.model.parts.images
        ids = torch.tensor(self.drawn(tokens))
        logits = self.logits(self.prompt(prompt), ids.tolist())
        return logits[ids != self.row_end][:, images.start : images.stop]

    def text_logits(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """`[L, V]`: rows of words only."""
        logits = self.logits(self.question(pixels), ids.tolist())
        return logits[:, : self.model.parts.images.start]

    @property
    def row_end(self) -> int:
        return self.core.config.vocabulary_map[ROW_END] if self.emu3 else -1


@pytest.fixture(scope="session", params=list(MAKE))
def published(request: pytest.FixtureRequest) -> Published:
    """For tests that change nothing in the model."""
    model: OneVocabulary = MAKE[request.param]()
    return Published(model, copy.deepcopy(model.core).double())


@pytest.fixture(params=list(MAKE))
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return MAKE[request.param]
