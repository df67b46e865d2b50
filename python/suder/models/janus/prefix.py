"""What stands before the targets: the tokens of prompts, questions and pictures, embedded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from suder.models.base import Condition, Direction
from suder.models.decoder.prefix import Prefix, of_ids, remembered
from suder.models.janus.layout import caption_ids, generation_ids, null_ids, understanding_ids
from suder.models.janus.parts import JanusParts

NullPrompt = Literal["fixed", "padded"]


class JanusPrompts:
    """Ids of everything that is asked of one model, by its processor's chat template."""

    def __init__(
        self,
        processor: Any,
        image_token_id: int,
        question: str,
        null_prompt: NullPrompt,
        system_prompt: str | None,
    ) -> None:
        if null_prompt not in ("fixed", "padded"):
            raise ValueError(f"null_prompt: takes 'fixed' or 'padded', got {null_prompt!r}")
        self.processor = processor
        self.null_prompt = null_prompt
        self.question_ids = understanding_ids(processor, question, system_prompt)
        self.asked_ids = remembered(lambda text: understanding_ids(processor, text, system_prompt))
        places = (self.question_ids == image_token_id).nonzero().flatten()
        self.picture = slice(int(places[0]), int(places[-1]) + 1)
        self.prompt_ids = remembered(lambda text: generation_ids(processor, text))
        self.text_ids = remembered(lambda text: caption_ids(processor, text))

    def prefix(self, parts: JanusParts, direction: Direction, condition: Condition) -> Prefix:
        """Of pixels `[C, 3, S, S]` (understanding) or of C prompts (generation)."""
        if direction == "understanding":
            if not isinstance(condition, Tensor) or condition.ndim != 4:
                raise TypeError("condition: understanding takes pixels [C, 3, S, S]; see pixels()")
            return self._of_pictures(parts, condition)
        if isinstance(condition, Tensor | str):
            raise TypeError(f"condition: generation takes a list of str, got {type(condition)}")
        return of_ids(parts, [self.prompt_ids(prompt.strip()) for prompt in condition])

    def null(self, parts: JanusParts, direction: Direction, lengths: Sequence[int]) -> Prefix:
        """The unconditional prefix of each of C conditions, given the conditions' lengths."""
        if direction != "generation":
            raise ValueError(f"guidance: only the generation direction has it, got {direction!r}")
        frame = null_ids(self.processor, self.prompt_ids(""))
        each = self.null_lengths(lengths)
        sizes = sorted(set(each))
        place = [sizes.index(length) for length in each]
        ids = [torch.cat([frame[:1], frame[1:2].expand(n - 2), frame[-1:]]) for n in sizes]
        return of_ids(parts, ids).take(place)

    def null_lengths(self, lengths: Sequence[int]) -> list[int]:
        """Of the unconditional prefixes, given the conditions'."""
        if self.null_prompt == "fixed":
            return [len(self.prompt_ids(""))] * len(lengths)
        return list(lengths)

    def _of_pictures(self, parts: JanusParts, pixels: Tensor) -> Prefix:
        weight = parts.core.get_input_embeddings().weight
        features = parts.picture_features(pixels.to(weight.device, weight.dtype))
        words = parts.text_embedding(self.question_ids.to(weight.device))
        words = words.expand(len(pixels), -1, -1)
        before, after = words[:, : self.picture.start], words[:, self.picture.stop :]
        embeddings = torch.cat([before, features.to(words.dtype), after], 1)
        return Prefix(embeddings, [embeddings.shape[1]] * len(pixels))
