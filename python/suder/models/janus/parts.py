"""The parts of transformers' Janus that each direction uses, and what they must agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaModel

from suder.models.base import Direction


class Parts:
    """A view of a `JanusForConditionalGeneration`; cheap to make, holds nothing of its own."""

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
        last = core.lm_head if text else core.model.generation_head.vision_head
        if hasattr(last, "base_layer"):
            raise ValueError(
                f"{direction}: an adapter sits on the last linear layer, whose weight the "
                "log-likelihood reads as it is; leave lm_head and vision_head out of target_modules"
            )
        return last.weight, last.bias

    def check(self, processor: Any) -> None:
        """Raises ValueError where model and processor cannot work together."""
        if not isinstance(self.language_model, LlamaModel):
            raise ValueError(
                f"model: the language model is a {type(self.language_model).__name__}; Janus and "
                "Janus-Pro have a Llama, whose layers decoding steps through"
            )
        attention = self.language_model.config._attn_implementation
        if attention not in ("sdpa", "eager"):
            raise ValueError(
                f"model: attention {attention!r} takes no mask of our own; load the model with "
                "attn_implementation='sdpa'"
            )
        config = self.core.config
        counts = {
            "vision_config.num_image_tokens": config.vision_config.num_image_tokens,
            "vq_config.num_patches squared": config.vq_config.num_patches**2,
            "processor.num_image_tokens": processor.num_image_tokens,
        }
        if len(set(counts.values())) > 1:
            raise ValueError(f"model: the numbers of image tokens disagree: {counts}")
        tokenizer, words = processor.tokenizer, config.text_config.vocab_size
        if len(tokenizer) > words:
            raise ValueError(
                f"model: the tokenizer has {len(tokenizer)} tokens, the model embeds {words}"
            )
        token = tokenizer.convert_tokens_to_ids(processor.image_token)
        if token != config.image_token_id:
            raise ValueError(
                f"model: image_token_id is {config.image_token_id} in config.json, but the "
                f"tokenizer's {processor.image_token} is {token}"
            )
        if not tokenizer.is_fast:
            raise ValueError(
                f"processor: {type(tokenizer).__name__} does not tell which characters a token "
                "stands for; save the tokenizer as tokenizer.json"
            )
        if processor.chat_template is None:
            raise ValueError(
                "processor: has no chat template, which says how prompts and pictures are laid out"
            )


def target_rows(
    direction: Direction, targets: Any, num_image_tokens: int, device: torch.device
) -> list[Tensor]:
    """One int64 tensor a sequence, or a ValueError that says what the direction takes."""
    if direction == "understanding":
        return [row.to(device) for row in targets]
    if direction != "generation":
        raise ValueError(f"direction: takes 'understanding' or 'generation', got {direction!r}")
    if not isinstance(targets, Tensor) or targets.shape[1:] != (num_image_tokens,):
        raise ValueError(f"targets: generation takes int64 VQ tokens [B, {num_image_tokens}]")
    return list(targets.to(device).unbind(0))
