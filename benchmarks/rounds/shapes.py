"""Models of Janus-Pro's published shapes, with random weights, and something to ask of them."""

from __future__ import annotations

import random
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
)

from suder.models import Janus, load_model
from suder.pretrain.architecture import FRAME_WORDS, SPECIAL, Sizes, build_processor

# Of deepseek-community/Janus-Pro-1B and -7B: width, inner width, layers, heads.
LANGUAGE = {"1b": (2048, 5632, 24, 16), "7b": (4096, 11008, 30, 32)}
SHAPES = ("tiny", *LANGUAGE)
VOCABULARY, POSITIONS, SIDE, PATCH = 102400, 16384, 384, 16
TINY_WORDS = ["a", "red", "green", "blue", "yellow", "circle", "square", "triangle", "two", "left"]
PROMPT_WORDS = {"tiny": 6, "1b": 20, "7b": 20}


def published_config(shape: str, image_token_id: int) -> JanusConfig:
    """What `config.json` of that model says, as far as sizes go."""
    width, inner, layers, heads = LANGUAGE[shape]
    side = SIDE // PATCH
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,
    )
    vision = JanusVisionConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=width,
        num_image_tokens=side * side,
    )
    vq = JanusVQVAEConfig(
        embed_dim=8,
        num_embeddings=16384,
        latent_channels=256,
        base_channels=128,
        channel_multiplier=[1, 1, 2, 2, 4],
        num_res_blocks=2,
        num_patches=side,
        projection_dim=width,
        image_token_embed_dim=width,
    )
    return JanusConfig(
        text_config=text,
        vision_config=vision,
        vq_config=vq,
        image_token_id=image_token_id,
        tie_word_embeddings=False,
    )


def processor_of(words: int) -> Any:
    """One of a tokenizer with so many tokens, each of them a word."""
    sizes = Sizes(image=SIDE, patch=PATCH, vq_multiplier=(1, 1, 2, 2, 4))
    special = len({*SPECIAL, *FRAME_WORDS})
    return build_processor([f"w{number}" for number in range(words - special)], sizes)


def build(
    shape: str, device: str, compute: torch.dtype | None, words: int = VOCABULARY
) -> tuple[Janus, list[str]]:
    """A model whose weights are made on the device in float32, as training holds them, and words
    to write prompts with. "tiny" is the embedded model."""
    if shape == "tiny":
        return load_model("shapes", device=device, compute=compute), TINY_WORDS
    processor = processor_of(words)
    config = published_config(
        shape, processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    )
    with torch.device(device):
        torch.manual_seed(0)
        core = JanusForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    tokenizer = processor.tokenizer
    start = tokenizer.convert_tokens_to_ids(processor.image_start_token)
    core.generation_config = GenerationConfig(  # `generate` fails without these
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        generation_kwargs={"boi_token_id": start},
    )
    model = Janus(core, processor, compute=compute, saved=torch.bfloat16)
    return model.to(device).eval(), [f"w{number}" for number in range(1000)]


def prompts(shape: str, words: list[str], count: int) -> list[str]:
    """Prompts of as many words as people write, no two alike."""
    make = random.Random(0)
    return [" ".join(make.choices(words, k=PROMPT_WORDS[shape])) for _ in range(count)]
