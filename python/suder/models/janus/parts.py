"""The parts of transformers' Janus that each direction uses, and what they must agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from suder.models.base import Direction
from suder.models.decoder.parts import check_language_model, check_tokenizer, plain_layer


class JanusParts:
    """A view of a `JanusForConditionalGeneration`; cheap to make, holds nothing of its own."""

    row = 0

    def __init__(self, core: Any) -> None:
        self.core = core
        self.language_model = core.model.language_model
        self.vqmodel = core.model.vqmodel
        self.image_vocab_size = int(core.config.vq_config.num_embeddings)

    def text_embedding(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.core.get_input_embeddings()(ids)
        return embedded

    def image_embedding(self, tokens: Tensor) -> Tensor:
        """Of VQ tokens, as the language model reads them while it draws."""
        embedded: Tensor = self.core.prepare_embeddings_for_image_generation(tokens)
        return embedded

    def picture_features(self, pixels: Tensor) -> Tensor:
        """`[C, I, D]` of the vision tower, as the language model reads a picture."""
        features: Tensor = self.core.model.get_image_features(
            pixels, return_dict=True
        ).pooler_output
        return features

    def target_embedding(self, direction: Direction) -> Callable[[Tensor], Tensor]:
        return self.text_embedding if direction == "understanding" else self.image_embedding

    def before_head(self, direction: Direction) -> Callable[[Tensor], Tensor]:
        """From the language model's output to the input of the last linear layer."""
        if direction == "understanding":
            return nn.Identity()
        head = self.core.model.generation_head
        return lambda hidden: head.activation_fn(head.proj_out(hidden))

    def last_layer(self, direction: Direction) -> tuple[Tensor, Tensor | None]:
        """Weight `[V, D]` and bias `[V]` of the last linear layer."""
        core = self.core
        text = direction == "understanding"
        head = core.lm_head if text else core.model.generation_head.vision_head
        last = plain_layer(head, direction)
        return last.weight, last.bias

    def check(self, processor: Any) -> None:
        """Raises ValueError where model and processor cannot work together."""
        check_language_model(self.language_model)
        config = self.core.config
        counts = {
            "vision_config.num_image_tokens": config.vision_config.num_image_tokens,
            "vq_config.num_patches squared": config.vq_config.num_patches**2,
            "processor.num_image_tokens": processor.num_image_tokens,
        }
        if len(set(counts.values())) > 1:
            raise ValueError(f"model: the numbers of image tokens disagree: {counts}")
        tokenizer = processor.tokenizer
        check_tokenizer(tokenizer, config.text_config.vocab_size)
        token = tokenizer.convert_tokens_to_ids(processor.image_token)
        if token != config.image_token_id:
            raise ValueError(
                f"model: image_token_id is {config.image_token_id} in config.json, but the "
                f"tokenizer's {processor.image_token} is {token}"
            )
        if processor.chat_template is None:
            raise ValueError(
                "processor: has no chat template, which says how prompts and pictures are laid out"
            )
