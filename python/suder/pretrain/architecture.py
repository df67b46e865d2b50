"""A small Janus of transformers' own classes, with a real tokenizer and processor.

Everything is the published architecture, only smaller: the same code loads this folder and
`deepseek-community/Janus-Pro-1B`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, model_validator
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.models import WordLevel
from torch.nn import functional as F
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

# The one without torchvision: a 32x32 picture needs no resizing to be fast.
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

from suder.settings.fields import Positive, Section

BOS, EOS, PAD, UNK = "<bos>", "<eos>", "<pad>", "<unk>"
BEGIN_OF_IMAGE, END_OF_IMAGE, IMAGE = "<begin_of_image>", "<end_of_image>", "<image_placeholder>"
SPECIAL = (PAD, BOS, EOS, UNK, BEGIN_OF_IMAGE, END_OF_IMAGE, IMAGE, "<|User|>", "<|Assistant|>")
CAPTION_TOKENS = 32  # the longest of the worlds have 9
# What the chat template and layout.QUESTION say besides the caller's words.
FRAME_WORDS = (":", ".", "describe", "the", "image")

# Says what Janus-Pro's template says for a conversation of text and pictures.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|User|>: ' if message['role'] == 'user' else '<|Assistant|>: ' -}}
{%- for part in message['content'] -%}
{{- ('' if loop.first else '\\n') -}}
{{- '<image_placeholder>' if part['type'] == 'image' else part['text'] | trim -}}
{%- endfor -%}
{{- '\\n\\n' if message['role'] == 'user' else eos_token -}}
{%- endfor -%}
{{- '<|Assistant|>:' if add_generation_prompt else '' -}}
"""


class Sizes(Section):
    """Widths and depths; the defaults are those of the embedded model."""

    image: Positive = Field(default=32, description="side of a picture in pixels")
    patch: Positive = Field(
        default=8, description="side of a patch; the vision grid must be the VQ grid"
    )
    hidden: Positive = Field(default=128, description="width of the language model")
    layers: Positive = Field(default=4, description="of the language model")
    heads: Positive = Field(default=4, description="of the language model")
    mlp: Positive = Field(default=384, description="inner width of the language model's layers")
    vision_hidden: Positive = Field(default=64, description="width of the vision tower")
    vision_layers: Positive = Field(default=2, description="of the vision tower")
    vision_heads: Positive = Field(default=4, description="of the vision tower")
    codebook: Positive = Field(default=128, description="number of VQ codes")
    code: Positive = Field(default=8, description="width of a code")
    vq_channels: Annotated[int, Field(ge=32, multiple_of=32)] = Field(
        default=32, description="of the VQ model; its GroupNorm has 32 groups"
    )
    vq_multiplier: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)] = Field(
        default=(1, 1, 2, 2),
        description="channels of each resolution, in vq_channels; one halving between",
    )
    vq_blocks: Positive = Field(default=1, description="residual blocks a resolution")

    @model_validator(mode="after")
    def _one_grid(self) -> Sizes:
        side = self.image // self.patch
        halvings = len(self.vq_multiplier) - 1
        if side * self.patch != self.image or side * 2**halvings != self.image:
            raise ValueError(
                f"a picture of {self.image} pixels in patches of {self.patch} and a VQ model that "
                f"halves it {halvings} times do not give one grid of tokens; both must divide the "
                "picture, by the same number"
            )
        return self

    @property
    def tokens(self) -> int:
        return (self.image // self.patch) ** 2


def build_janus(
    words: Sequence[str], *, seed: int, sizes: Sizes | None = None
) -> tuple[JanusForConditionalGeneration, JanusProcessor]:
    """An untrained model (float32, CPU, eval mode) and its processor.

    `words` are the vocabulary besides the special tokens and the template's own words; any other
    word is read as `<unk>`. The same words, seed and sizes give the same weights. The global random
    state is left as it was. Both save and load in the Hugging Face format.
    """
    sizes = sizes or Sizes()
    processor = build_processor(words, sizes)
    config = _config(processor, sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = JanusForConditionalGeneration(config)
        # Decoding normalises codes and quantising does not: on the sphere, both agree.
        codebook = model.model.vqmodel.quantize.embedding.weight
        codebook.data.copy_(F.normalize(torch.randn_like(codebook), dim=-1))
    model.generation_config = _generation_config(processor)
    return model.eval(), processor


def build_processor(words: Sequence[str], sizes: Sizes) -> JanusProcessor:
    """A word-level tokenizer and an image processor that maps uint8 pixels to [-1, 1]."""
    pixels = JanusImageProcessorPil(
        size={"height": sizes.image, "width": sizes.image},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        min_size=sizes.image,
    )
    return JanusProcessor(
        image_processor=pixels,
        tokenizer=_tokenizer(words),
        chat_template=CHAT_TEMPLATE,
        num_image_tokens=sizes.tokens,
    )


def _tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    vocabulary = list(dict.fromkeys([*SPECIAL, *FRAME_WORDS, *(word.lower() for word in words)]))
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=UNK))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[.,:;!?]"), behavior="isolated"),
        ]
    )
    backend.decoder = decoders.WordPiece()  # no blank before a comma
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary.index(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens={
            "image_token": IMAGE,
            "boi_token": BEGIN_OF_IMAGE,
            "eoi_token": END_OF_IMAGE,
        },
    )


def _config(processor: JanusProcessor, sizes: Sizes) -> JanusConfig:
    tokenizer = processor.tokenizer
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden,
        intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    vision = JanusVisionConfig(
        hidden_size=sizes.vision_hidden,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        image_size=sizes.image,
        patch_size=sizes.patch,
        projection_dim=sizes.hidden,
        num_image_tokens=sizes.tokens,
    )
    vq = JanusVQVAEConfig(
        embed_dim=sizes.code,
        num_embeddings=sizes.codebook,
        latent_channels=sizes.vq_channels,
        base_channels=sizes.vq_channels,
        channel_multiplier=list(sizes.vq_multiplier),
        num_res_blocks=sizes.vq_blocks,
        projection_dim=sizes.hidden,
        image_token_embed_dim=sizes.hidden,
    )
    return JanusConfig(
        text_config=text,
        vision_config=vision,
        vq_config=vq,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        tie_word_embeddings=False,  # transformers' default ties lm_head to the embeddings
    )


def _generation_config(processor: JanusProcessor) -> GenerationConfig:
    """Made afresh, since one derived from the model's config forgets `generation_kwargs` on load.

    transformers' image `generate` reads all of these and fails without them.
    """
    tokenizer = processor.tokenizer
    start = tokenizer.convert_tokens_to_ids(BEGIN_OF_IMAGE)
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=CAPTION_TOKENS,
        generation_kwargs={"boi_token_id": start},
    )
