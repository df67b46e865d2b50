"""Emu3 (arXiv 2409.18869) through transformers' own classes and checkpoint format."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from suder.models.decoder.words import MARK, Spelled
from suder.models.one_vocabulary.adapter import OneVocabulary
from suder.models.one_vocabulary.parts import VocabularyParts
from suder.models.one_vocabulary.prompts import Frames, VocabularyPrompts

QUESTION = "Describe the image."
JUDGE = "Does this picture show {text}? Please answer yes or no."
SYSTEM = "You are a helpful assistant."
ROW_END = "<|extra_200|>"
VISUAL = re.compile(r"<\|visual token (\d+)\|>")


class Emu3(OneVocabulary):
    """Adapter of `Emu3ForConditionalGeneration` and its processor; Chat, Gen, or a fine-tune.

        understanding   BOS You are a helpful assistant. USER: <boi>H*W<img> (VQ*W EOL)*H EOF <eoi>
                        Describe the image. ASSISTANT:  ->  caption EOS
        generation      BOS prompt <boi>H*W<img>  ->  VQ tokens, with EOL after each row of W

    The residual branches of a checkpoint that is trained have a dropout of 0.1 unless its config
    says otherwise; it is 0 here, for a ratio of 1 and rewards that can be had again.

    Args:
        model: the model, or a PEFT model around it.
        processor: its processor; the chat template lays out a question.
        question: what is asked about a picture; None: "Describe the image."
        null_prompt: the prompt of guidance's unconditional branch, such as a list of what is not
            wanted; None: an empty one.
        image_size: side of a picture in pixels, a multiple of 8; None: as saved, or that of the
            processor's `image_area`: 720, of 8,190 tokens, the ends of rows included; 256: 1,056.
        system_prompt: what stands before the user's turn; None: "You are a helpful assistant."
        judge: what is asked about a picture and a text, `{text}`; None: as in `JUDGE`.
        compute, saved: see `DecoderModel`.
    """

    repeats = 4
    colour = (255, 255, 255)

    def __init__(
        self,
        model: Any,
        processor: Any,
        question: str | None = None,
        null_prompt: str | None = None,
        compute: torch.dtype | None = None,
        saved: torch.dtype | None = None,
        system_prompt: str | None = None,
        image_size: int | None = None,
        judge: str | None = None,
    ) -> None:
        super().__init__(model, processor, compute, saved)
        core = self.core
        _without_dropout(core.model.text_model)
        vq = core.config.vq_config
        self.factor, self.repeats = processor.downsample_ratio, vq.temporal_downsample_factor
        pixels = processor.image_processor
        self.statistics = (
            (pixels.image_mean, pixels.image_std)
            if pixels.do_normalize
            else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        )
        self.images = _visual_tokens(core.config.vocabulary_map, vq.codebook_size)
        usual = round(processor.image_area**0.5 / self.factor) * self.factor
        self._choose_size(image_size, usual)
        self.parts.check(processor.tokenizer, self.eos_token_id)
        question = QUESTION if question is None else question
        null_prompt = null_prompt or ""
        system_prompt = SYSTEM if system_prompt is None else system_prompt
        frames = self._frames(system_prompt)
        frame = "".join((*frames.question, *frames.prompt))
        words = Spelled(processor.tokenizer, frame, self.images)
        before, after = frames.prompt
        null = words.within(before, null_prompt, after)
        places = self.grid * (self.grid + 1)
        self.prompts = VocabularyPrompts(words, frames, question, null, places, self.eos_token_id)
        self.asks = {
            "question": question,
            "system_prompt": system_prompt,
            "null_prompt": null_prompt,
            "judge": JUDGE if judge is None else judge,
            "image_size": self.image_size,
        }
        self.settle()

    @property
    def parts(self) -> VocabularyParts:
        model = self.core.model
        row_end = self.core.config.vocabulary_map[ROW_END]
        return VocabularyParts(
            self.core, model.text_model, model.vqmodel, self.images, self.grid, row_end
        )

    def _frames(self, system: str) -> Frames:
        processor = self.processor
        size = f"{self.grid}*{self.grid}"
        opening = f"{processor.image_start_token}{size}{processor.fake_token_around_image}"
        picture = opening + processor.eof_token + processor.image_end_token
        turns = [
            {"role": "system", "content": [{"type": "text", "text": system}]},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": MARK}]},
        ]
        asked = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        before, mark, after = asked.partition(MARK)
        if not mark or before.count(processor.image_token) != 1:
            raise ValueError("processor: the chat template leaves out picture or words of the user")
        before = processor.bos_token + before.replace(processor.image_token, picture)
        wrapper = processor.tokenizer.convert_tokens_to_ids(processor.fake_token_around_image)
        # A word of the answer has a blank before it, as in the template's turns of the assistant.
        return Frames((before, after), (processor.bos_token, opening), wrapper, " ")

    def _codes(self, pixels: Tensor) -> Tensor:
        sizes: Any = [(self.image_size, self.image_size)] * len(pixels)
        codes = self.parts.vqmodel.encode(pixels, sizes).image_tokens
        return torch.stack(codes).flatten(1)

    def vq_decode(self, tokens: Tensor) -> Tensor:
        decoded: Tensor = self.parts.vqmodel.decode(tokens.unflatten(1, (self.grid, self.grid)))
        return decoded


def _without_dropout(language_model: Any) -> None:
    language_model.config.attention_dropout = 0.0
    for module in language_model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0


def _visual_tokens(vocabulary: dict[str, int] | None, codes: int) -> range:
    """Ids of codes 0, 1, ...; a log-likelihood takes them as one slice of the head."""
    found = {}
    for token, place in (vocabulary or {}).items():
        if named := VISUAL.fullmatch(token):
            found[int(named[1])] = place
    first = found.get(0, 0)
    if found != {code: first + code for code in range(codes)}:
        raise ValueError(
            f"model: config.vocabulary_map names {len(found)} visual tokens; suder takes one for "
            f"each of the VQ model's {codes} codes, in the order of the codes and side by side"
        )
    return range(first, first + codes)
