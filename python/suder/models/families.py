"""The families that `load_model` knows, by the `model_type` of their config."""

from __future__ import annotations

from typing import Any, NamedTuple

from transformers import (
    AutoTokenizer,
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3Processor,
    GemmaConfig,
    GemmaForCausalLM,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
)

from suder.models.decoder.adapter import DecoderModel
from suder.models.janus.adapter import Janus
from suder.models.one_vocabulary.emu3 import Emu3
from suder.models.one_vocabulary.liquid import Liquid


class Family(NamedTuple):
    """How a checkpoint is read, by transformers' own classes.

    Attributes:
        config, model, processor: classes with `from_pretrained`.
        adapter: what makes an adapter of what they give.
        known: published checkpoints.
        renamed: patterns of names of tensors in files, and what the model has instead, where they
            differ.
    """

    config: Any
    model: Any
    processor: Any
    adapter: type[DecoderModel]
    known: str
    renamed: tuple[tuple[str, str], ...] = ()


FAMILIES = {
    "janus": Family(
        JanusConfig,
        JanusForConditionalGeneration,
        JanusProcessor,
        Janus,
        "transformers' format, e.g. deepseek-community/Janus-Pro-1B; the deepseek-ai/ "
        "repositories hold the older 'multi_modality' format",
    ),
    "emu3": Family(
        Emu3Config,
        Emu3ForConditionalGeneration,
        Emu3Processor,
        Emu3,
        "transformers' format, e.g. BAAI/Emu3-Chat-hf, BAAI/Emu3-Gen-hf",
        (
            (r"^text_model\.lm_head\.", "lm_head."),
            (r"^text_model\.model\.", "model.text_model."),
            (r"^vqmodel\.", "model.vqmodel."),
        ),
    ),
    "gemma": Family(
        GemmaConfig,
        GemmaForCausalLM,
        AutoTokenizer,
        Liquid,
        "of Liquid alone, e.g. Junfeng5/Liquid_V1_7B",
    ),
}


def family_of(kind: object) -> Family | None:
    return FAMILIES.get(str(kind))


def known_families() -> str:
    return "; ".join(f"{kind!r} ({family.known})" for kind, family in FAMILIES.items())
