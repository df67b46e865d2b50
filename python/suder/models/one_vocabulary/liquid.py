"""Liquid (arXiv 2412.04332): a Gemma whose vocabulary goes on with Chameleon's VQ codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from suder.models.decoder.words import Spelled
from suder.models.one_vocabulary.adapter import OneVocabulary
from suder.models.one_vocabulary.parts import VocabularyParts
from suder.models.one_vocabulary.prompts import Frames, VocabularyPrompts
from suder.models.one_vocabulary.taming import FILE, PICKLE, TamingVQ, read_vq

BEGIN, END = "<boi>", "<eoi>"
# The words that it was trained with, in both directions.
QUESTION = "The caption of this image is:"
# It answers by going on, so the question ends where its answer begins.
JUDGE = "Does this image show {text}? Answer yes or no. The answer is:"
DRAW = " Generate an image based on this description."
NULL = "<unconditional>"
SIZE = 512
FACTOR = 16


class Liquid(OneVocabulary):
    """Adapter of `GemmaForCausalLM`, its tokenizer, and the VQ model, which it is saved with.

        understanding   BOS <boi> VQ*1024 <eoi> The caption of this image is:  ->  caption EOS
        generation      BOS prompt Generate an image based on this description. <boi>  ->  VQ tokens

    Args:
        model: the model, or a PEFT model around it.
        processor: its tokenizer; VQ tokens follow its last.
        vqmodel: Chameleon's; None: there is none, and pictures can be neither read nor shown.
        question: what is said about a picture that is to be described; None: as above.
        null_prompt: the prompt of guidance's unconditional branch; None: "<unconditional>".
        system_prompt: None or "": there is none.
        image_size: side of a picture in pixels; None: as saved, or 512 as it was trained.
        judge: what is asked about a picture and a text, `{text}`; None: as in `JUDGE`.
        compute, saved: see `DecoderModel`.
    """

    statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    colour = (122, 116, 104)

    def __init__(
        self,
        model: Any,
        processor: Any,
        vqmodel: TamingVQ | None = None,
        question: str | None = None,
        null_prompt: str | None = None,
        compute: torch.dtype | None = None,
        saved: torch.dtype | None = None,
        system_prompt: str | None = None,
        image_size: int | None = None,
        judge: str | None = None,
    ) -> None:
        super().__init__(model, processor, compute, saved)
        self.vqmodel = None if vqmodel is None else vqmodel.to(self.dtype)
        self.factor = FACTOR if vqmodel is None else vqmodel.factor
        self._choose_size(image_size, SIZE)
        if system_prompt:
            raise ValueError("system_prompt: Liquid has none; put what it shall say into question")
        question = QUESTION if question is None else question
        null_prompt = NULL if null_prompt is None else null_prompt
        begin, end = (_token(processor, token) for token in (BEGIN, END))
        self.parts.check(processor, self.eos_token_id)
        words = Spelled(processor, BEGIN + END, (begin, end))
        frames = Frames((BEGIN + END, ""), ("", DRAW + BEGIN), begin)
        null = processor(null_prompt + BEGIN)["input_ids"]
        self.prompts = VocabularyPrompts(
            words, frames, question, null, self.num_image_tokens, self.eos_token_id
        )
        self.asks = {
            "question": question,
            "system_prompt": "",
            "null_prompt": null_prompt,
            "judge": JUDGE if judge is None else judge,
            "image_size": self.image_size,
        }
        self.settle()

    @classmethod
    def of_folder(cls, folder: Path, model: Any, processor: Any, **options: Any) -> Self:
        return cls(model, processor, read_vq(folder), **options)

    @property
    def parts(self) -> VocabularyParts:
        core, first = self.core, len(self.processor)
        rows = len(core.get_input_embeddings().weight)
        end = rows if self.vqmodel is None else first + self.vqmodel.codes
        return VocabularyParts(core, core.model, self.vqmodel, range(first, end))

    @property
    def codebook(self) -> Tensor:
        weight: Tensor = self._vq.vq.quantize.embedding.weight
        return weight

    def save(self, path: str | Path) -> None:
        super().save(path)
        if self.vqmodel is not None:
            self.vqmodel.save(Path(path))

    def _codes(self, pixels: Tensor) -> Tensor:
        return self._vq.encode(pixels)

    def vq_decode(self, tokens: Tensor) -> Tensor:
        return self._vq.decode(tokens)

    @property
    def _vq(self) -> TamingVQ:
        if self.vqmodel is None:
            raise ValueError(
                "model: Liquid's checkpoint has no VQ model, without which pictures are neither "
                f"read nor shown; put Chameleon's {PICKLE} (or {FILE}) into the model's folder"
            )
        return self.vqmodel


def _token(tokenizer: Any, token: str) -> int:
    ids = tokenizer(token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(
            f"model: {token} is no token of its vocabulary, so this is a plain Gemma; suder has an "
            "adapter for Liquid, which is one that draws"
        )
    return int(ids[0])
