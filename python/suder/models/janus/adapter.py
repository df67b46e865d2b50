"""Janus and Janus-Pro through transformers' own classes and checkpoint format."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import JanusForConditionalGeneration, JanusProcessor

from suder.models.decoder.adapter import DecoderModel
from suder.models.janus import pictures
from suder.models.janus.layout import JUDGE, QUESTION, system_text
from suder.models.janus.parts import JanusParts
from suder.models.janus.prefix import JanusPrompts, NullPrompt
from suder.models.precision import exactly


class Janus(DecoderModel):
    """Adapter of `JanusForConditionalGeneration` and its processor.

    Args:
        model: the model (or a PEFT model around it), with sdpa or eager attention.
        processor: its processor; the chat template lays out both directions.
        question: what is asked about a picture in the understanding direction; None: "Describe the
            image.", which the embedded models have learnt.
        null_prompt: the prompt of guidance's unconditional branch. "padded" (and None): each
            prompt's own tokens but BOS and begin-of-image replaced by padding, as in training,
            in DeepSeek's code and in transformers' `generate`; the branch knows how long the
            prompt is. "fixed": so for an empty prompt, the same for every prompt.
        system_prompt: what stands before a question about a picture; None: what the processor puts
            there, which for the published checkpoints is its default system prompt; "": nothing.
        judge: what is asked about a picture and a text, `{text}`; None: as in `layout.JUDGE`.
        compute, saved: see `DecoderModel`.
        image_size: None, or the model's own: it draws in one size.

    Attributes:
        asks: question, judge, system_prompt and null_prompt as they are, where None left them open.
    """

    def __init__(
        self,
        model: JanusForConditionalGeneration,
        processor: JanusProcessor,
        question: str | None = None,
        null_prompt: NullPrompt | None = None,
        compute: torch.dtype | None = None,
        saved: torch.dtype | None = None,
        system_prompt: str | None = None,
        image_size: int | None = None,
        judge: str | None = None,
    ) -> None:
        super().__init__(model, processor, compute, saved)
        if image_size not in (None, self.image_size):
            raise ValueError(f"image_size: Janus draws {self.image_size} pixels, got {image_size}")
        self.parts.check(processor)
        question = QUESTION if question is None else question
        null_prompt = "padded" if null_prompt is None else null_prompt
        image_token_id = self.core.config.image_token_id
        self.prompts = JanusPrompts(processor, image_token_id, question, null_prompt, system_prompt)
        self.asks = {
            "question": question,
            "system_prompt": system_text(processor, system_prompt),
            "null_prompt": null_prompt,
            "judge": JUDGE if judge is None else judge,
        }
        self.settle()

    # ---- what the model is

    @property
    def parts(self) -> JanusParts:
        return JanusParts(self.core)

    @property
    def image_size(self) -> int:
        return int(self.core.config.vision_config.image_size)

    @property
    def background(self) -> tuple[int, int, int]:
        return pictures.background_of(self.processor.image_processor)

    @property
    def num_image_tokens(self) -> int:
        return int(self.core.config.vision_config.num_image_tokens)

    @property
    def positions(self) -> int:
        """Tokens that fit before and in an answer together."""
        return int(self.core.config.text_config.max_position_embeddings)

    # ---- pictures

    def pixels(self, images: Any) -> Tensor:
        """`[B, 3, S, S]` in the VQ model's dtype, on the model's device.

        From PIL pictures, uint8 arrays `[H, W, 3]` or a uint8 array or tensor `[B, H, W, 3]`.
        """
        pixels = pictures.to_pixels(images, self.processor.image_processor, self.image_size)
        # A copy to draw with has a last layer of 16 bits; the VQ model never has.
        return pixels.to(self.device, next(self.parts.vqmodel.parameters()).dtype)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """VQ tokens int64 `[B, I]` of pixels `[B, 3, S, S]`; both sides l2-normalised."""
        with exactly(self.device):
            return pictures.encode(self.parts.vqmodel, self.processor.image_processor, pixels)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Pictures uint8 `[B, S, S, 3]` of VQ tokens `[B, I]`; equal rows are decoded once."""
        tokens = tokens.to(self.device)
        with exactly(self.device):
            return pictures.decode(self.parts.vqmodel, tokens, self.image_size)

    @property
    def pictures_at_once(self) -> int:
        return max(2, pictures.AT_ONCE // self.image_size**2)

    def vq_decode(self, tokens: Tensor) -> Tensor:
        decoded: Tensor = self.parts.vqmodel.decode(tokens)
        return decoded
