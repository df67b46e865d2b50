"""Small random models of every family that `load_model` knows, of transformers' own classes."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import nn
from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3ImageProcessor,
    Emu3Processor,
    GemmaConfig,
    GemmaForCausalLM,
    JanusVQVAEConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.janus.modeling_janus import JanusVQVAE

from suder.models.one_vocabulary.emu3 import ROW_END, Emu3
from suder.models.one_vocabulary.liquid import DRAW, QUESTION, Liquid
from suder.models.one_vocabulary.taming import TamingVQ

CODES, SIDE, LAYERS = 48, 32, 2
WORDS = ("a", "an", "and", "red", "green", "blue", "circle", "square", "triangle", "two")
# That the judge's question takes besides.
JUDGING = (
    "Does",
    "this",
    "picture",
    "image",
    "show",
    "?",
    "Answer",
    "Please",
    "answer",
    "The",
    "is",
)
JUDGING += ("yes", "or", "no", "Yes", "No", ":", ".")
WORDS += ("left", "right", "of", "above", "below", "circles", "unconditional")
# What transformers' conversion of Emu3 writes, in one line.
EMU3_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
EMU3_NAMES = {
    "image_token": "<image>",
    "boi_token": "<|image start|>",
    "eoi_token": "<|image end|>",
    "image_wrapper_token": "<|image token|>",
    "eof_token": "<|extra_201|>",
}
EMU3_FRAME = "You are a helpful assistant. USER: Describe the image. ASSISTANT: 4*4 2*2"


def small_liquid(seed: int = 0, words: tuple[str, ...] = (), **options: Any) -> Liquid:
    """16 tokens a picture; width and heads disagree, as in the published one."""
    tokenizer = _tokenizer(
        ["<pad>", "<eos>", "<bos>", "<unk>", "<boi>", "<eoi>"],
        f"{QUESTION} {DRAW}",
        words,
        (),
        bos=True,
    )
    config = GemmaConfig(
        vocab_size=len(tokenizer) + CODES,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        max_position_embeddings=128,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GemmaForCausalLM._from_config(config, attn_implementation="sdpa").eval()
    _liven(model, seed)
    options.setdefault("image_size", SIDE)
    return Liquid(model, tokenizer, TamingVQ(taming_state(seed)), **options)


def small_emu3(seed: int = 0, words: tuple[str, ...] = (), **options: Any) -> Emu3:
    """16 tokens a picture, in rows of four."""
    visual = tuple(f"<|visual token {code:06d}|>" for code in range(CODES))
    tokenizer = _tokenizer(
        ["<pad>", "<eos>", "<bos>", "<unk>", ROW_END, *EMU3_NAMES.values()],
        EMU3_FRAME,
        words,
        visual,
        extra_special_tokens=EMU3_NAMES,
    )
    pixels = Emu3ImageProcessor(min_pixels=SIDE**2, max_pixels=SIDE**2)
    processor = Emu3Processor(pixels, tokenizer, chat_template=EMU3_TEMPLATE)
    config = Emu3Config(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
        },
        vq_config={
            "codebook_size": CODES,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 1, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [3],
            "hidden_size": 32,
        },
        vocabulary_map=tokenizer.get_vocab(),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Emu3ForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    _liven(model.eval(), seed)
    options.setdefault("image_size", SIDE)
    return Emu3(model, processor, **options)


def taming_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights by the names of taming transformers; three halvings."""
    config = JanusVQVAEConfig(
        embed_dim=8,
        num_embeddings=CODES,
        latent_channels=16,
        base_channels=32,
        channel_multiplier=[1, 1, 2, 2],
        num_res_blocks=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vq: Any = JanusVQVAE(config)
        vq.quantize.embedding.weight.data.normal_()
    for level in (vq.encoder.down[-1], vq.decoder.up[0]):
        level.attn = nn.ModuleList()
    vq.quant_conv.weight.data.mul_(20.0)  # so that pictures have more codes than one
    state = {}
    for name, value in vq.state_dict().items():
        part, _, rest = name.partition(".up.")
        if rest:
            level, _, inner = rest.partition(".")
            name = f"{part}.up.{3 - int(level)}.{inner}"
        state[name] = value
    return state


def _tokenizer(
    special: list[str],
    text: str,
    more: tuple[str, ...],
    visual: tuple[str, ...],
    bos: bool = False,
    **named: Any,
) -> PreTrainedTokenizerFast:
    words = pre_tokenizers.Whitespace().pre_tokenize_str(text)
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    words = split.pre_tokenize_str(text)
    vocabulary = list(
        dict.fromkeys([*special, *(word for word, _ in words), *WORDS, *more, *visual])
    )
    backend = Tokenizer(WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = split
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    backend.add_special_tokens([AddedToken(one, normalized=False) for one in (*special, *visual)])
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", vocabulary.index("<bos>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        **named,
    )


def _liven(model: Any, seed: int) -> None:
    """Weights large enough that distributions are far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    tied = model.config.tie_word_embeddings
    for name, weight in model.named_parameters():
        if "vqmodel" in name or weight.ndim != 2:
            continue
        # A tied head would, of larger embeddings, say again what was said last.
        usual = 1.2 * weight.shape[1] ** -0.5
        spread = usual if "embed" not in name else 0.15 if tied else 1.0
        weight.data.normal_(0.0, spread, generator=generator)
