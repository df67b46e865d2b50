"""Janus and Janus-Pro through transformers' own classes and checkpoint format."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import JanusForConditionalGeneration, JanusProcessor

from suder.models.decoder.adapter import DecoderModel
from suder.models.janus import pictures
from suder.models.janus.layout import QUESTION
from suder.models.janus.parts import JanusParts
from suder.models.janus.prefix import JanusPrompts, NullPrompt
from suder.models.precision import exactly


class Janus(DecoderModel):
    """Adapter of `JanusForConditionalGeneration` and its processor.

    Args:
        model: the model (or a PEFT model around it), with sdpa or eager attention.
        processor: its processor; the chat template lays out both directions.
        question: what is asked about a picture in the understanding direction.
        null_prompt: the prompt of guidance's unconditional branch. "fixed": the frame of an empty
            prompt with all but BOS and begin-of-image replaced by padding, the same for every
            prompt. "padded": each prompt's own tokens replaced by padding, as DeepSeek and
            transformers' `generate` do, so the branch knows how long the prompt is.
        compute, saved: see `DecoderModel`.
    """

    def __init__(
        self,
        model: JanusForConditionalGeneration,
        processor: JanusProcessor,
        question: str = QUESTION,
        null_prompt: NullPrompt = "fixed",
        compute: torch.dtype | None = None,
        saved: torch.dtype | None = None,
    ) -> None:
        super().__init__(model, processor, compute, saved)
        self.parts.check(processor)
        self.prompts = JanusPrompts(
            processor, self.core.config.image_token_id, question, null_prompt
        )
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
        """`[B, 3, S, S]` in the model's dtype and device.

        From PIL pictures, uint8 arrays `[H, W, 3]` or a uint8 array or tensor `[B, H, W, 3]`.
        """
        pixels = pictures.to_pixels(images, self.processor.image_processor, self.image_size)
        return pixels.to(self.device, self.dtype)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """VQ tokens int64 `[B, I]` of pixels `[B, 3, S, S]`; both sides l2-normalised."""
        with exactly(self.device):
            return pictures.encode(self.parts.vqmodel, pixels)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Pictures uint8 `[B, S, S, 3]` of VQ tokens `[B, I]`; equal rows are decoded once."""
        tokens = tokens.to(self.device)
        processor = self.processor.image_processor
        with exactly(self.device):
            return pictures.decode(self.parts.vqmodel, processor, tokens, self.image_size)

    @property
    def pictures_at_once(self) -> int:
        return max(2, pictures.AT_ONCE // self.image_size**2)

    def vq_decode(self, tokens: Tensor) -> Tensor:
        decoded: Tensor = self.parts.vqmodel.decode(tokens)
        return decoded
