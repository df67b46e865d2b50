"""A stand-in of deepseek-community/Janus-Pro: the published files and settings, small weights.

The tokenizer spells any text in bytes and has the published names; the chat template is worded
anew and says what the published one does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers.models import BPE
from transformers import JanusForConditionalGeneration, JanusProcessor

from suder.pretrain.architecture import Sizes, build_janus

BOS, EOS = "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"
PAD = "<\uff5c\u2581pad\u2581\uff5c>"
IMAGES = ("<begin_of_image>", "<end_of_image>", "<image_placeholder>")
SPECIAL = (BOS, EOS, PAD, *IMAGES, "<patch_placeholder>", "<|ref|>", "<|/ref|>", "<|det|>")
SPECIAL += ("<|/det|>", "<|grounding|>", "<|User|>", "<|Assistant|>")
PICTURE_NAMES = ("image_token", "boi_token", "eoi_token")
PLAIN = ("ø", "ö", "ú", "ÿ", "þ")  # added, but words like others
CORPUS = (
    "You are a helpful language and vision assistant. You can see the picture that the user shows.",
    "Describe the image. The picture shows a red circle and two blue squares beside a green tree.",
    "user assistant begin end of sentence image placeholder pad ref det grounding 1234567890",
)
TEMPLATE = """\
{%- for message in messages -%}
{%- set parts = message['content'] -%}
{%- set user = message['role'] == 'user' -%}
{%- set open = loop.last and not add_generation_prompt -%}
{{- '<|User|>: ' if user else '<|Assistant|>:' -}}
{{- '' if user or (open and parts[0]['text'] == '') else ' ' -}}
{%- for part in parts -%}
{%- if part['type'] == 'image' -%}
{{- ('' if loop.first else '\\n') + '<image_placeholder>' + ('' if loop.last else '\\n') -}}
{%- else -%}
{%- set words = part['text'].lstrip() if loop.first else part['text'] -%}
{{- ' ' if loop.previtem and loop.previtem['type'] == 'text' else '' -}}
{{- words.rstrip() if loop.last else words -}}
{%- endif -%}
{%- endfor -%}
{{- '' if open else '\\n\\n' if user else '<\uff5cend\u2581of\u2581sentence\uff5c>' -}}
{%- endfor -%}
{{- '<|Assistant|>:' if add_generation_prompt else '' -}}
"""
SIZES = Sizes(
    image=16,
    patch=4,
    hidden=32,
    layers=2,
    heads=2,
    mlp=48,
    vision_hidden=32,
    vision_layers=1,
    vision_heads=2,
    codebook=48,
    vq_multiplier=(1, 1, 1),
)


def write_processor(folder: Path, size: int = 384, image_tokens: int = 576) -> None:
    """Tokenizer, chat template and picture processor, in the files that the hub has."""
    folder.mkdir(parents=True, exist_ok=True)
    _tokenizer().save(str(folder / "tokenizer.json"))
    names = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD, "image_token": IMAGES[2]}
    names |= {"boi_token": IMAGES[0], "eoi_token": IMAGES[1]}
    _write(folder / "special_tokens_map.json", names)
    _write(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "add_prefix_space": None,
            "clean_up_tokenization_spaces": False,
            "extra_special_tokens": {key: names[key] for key in PICTURE_NAMES},
            "legacy": True,
            "model_max_length": 16384,
            "processor_class": "JanusProcessor",
            "tokenizer_class": "LlamaTokenizerFast",
            "unk_token": None,
            "use_default_system_prompt": True,
            **names,
        },
    )  # fmt: skip
    about: dict[str, Any] = {"processor_class": "JanusProcessor", "use_default_system_prompt": True}
    if image_tokens != 576:
        about["num_image_tokens"] = image_tokens
    _write(folder / "processor_config.json", about)
    _write(
        folder / "preprocessor_config.json",
        {
            "background_color": [127, 127, 127],
            "do_convert_rgb": None,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "JanusImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "min_size": 14,
            "processor_class": "JanusProcessor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"height": size, "width": size},
        },
    )
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def write_checkpoint(folder: Path, seed: int = 0) -> None:
    """All of it: bfloat16, in pieces with an index, and a config that leaves out the defaults."""
    write_processor(folder, SIZES.image, SIZES.tokens)
    tokenizer = JanusProcessor.from_pretrained(folder).tokenizer
    config = build_janus((), seed=seed, sizes=SIZES)[0].config
    text = config.text_config
    text.vocab_size = len(tokenizer) + 9  # the published one has rows to spare
    text.max_position_embeddings = 16384
    text.bos_token_id, text.eos_token_id, text.pad_token_id = tokenizer.convert_tokens_to_ids(
        [BOS, EOS, PAD]
    )
    config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGES[2])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = JanusForConditionalGeneration(config)
        for name, weight in model.named_parameters():
            if "vqmodel" not in name and weight.ndim == 2:
                spread = 1.0 if "embed" in name else 1.2 * weight.shape[1] ** -0.5
                weight.data.normal_(0.0, spread)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="100KB")
    written = json.loads((folder / "config.json").read_text())
    del written["tie_word_embeddings"]  # true by default; the weights are two all the same
    _write(folder / "config.json", written)
    start = tokenizer.convert_tokens_to_ids(IMAGES[0])
    _write(
        folder / "generation_config.json",
        {
            "_from_model_config": False,
            "bos_token_id": text.bos_token_id,
            "eos_token_id": text.eos_token_id,
            "generation_kwargs": {"boi_token_id": start},
            "guidance_scale": 5,
            "pad_token_id": text.pad_token_id,
        },
    )


def _tokenizer() -> Tokenizer:
    backend = Tokenizer(BPE())
    pieces = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"\s+$", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(piece), behavior="isolated") for piece in pieces),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=480, initial_alphabet=letters, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_special_tokens([AddedToken(one, normalized=False) for one in SPECIAL])
    backend.add_tokens([AddedToken(one, normalized=True) for one in PLAIN])
    begin = (BOS, backend.token_to_id(BOS))
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[begin]
    )
    return backend


def _write(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False), encoding="utf-8")
