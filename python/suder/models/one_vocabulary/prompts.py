"""How a model of one vocabulary is asked: ids of prompts, of questions and of what answers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from suder.models.base import Condition, Direction
from suder.models.decoder.prefix import Prefix, of_ids, remembered
from suder.models.decoder.words import Spelled
from suder.models.one_vocabulary.parts import VocabularyParts


class Frames(NamedTuple):
    """What stands around a user's words, the tokens that mean something included.

    Attributes:
        question: before and after the question about a picture.
        prompt: before and after the prompt of a picture.
        opening: the token that a picture follows, in both.
        answer: what stands between a question and the first word of its answer.
    """

    question: tuple[str, str]
    prompt: tuple[str, str]
    opening: int
    answer: str = ""


class VocabularyPrompts:
    """Ids of everything that is asked of one model.

    Args:
        words: of its tokenizer.
        frames: of its family.
        question: what is asked about a picture.
        null: ids of the prompt of guidance's unconditional branch, its frame included.
        places: tokens of a picture that is read, ends of rows included.
        eos: ends a text.
    """

    def __init__(
        self,
        words: Spelled,
        frames: Frames,
        question: str,
        null: Sequence[int],
        places: int,
        eos: int,
    ) -> None:
        self.places, self.words, self.frames = places, words, frames
        self.question_ids = self._asked(question)
        start = self.question_ids.tolist().index(frames.opening) + 1
        self.picture = slice(start, start + places)
        self.asked_ids = remembered(self._asked)
        self.null_ids = torch.tensor(null)
        before, after = frames.prompt
        self.prompt_ids = remembered(lambda text: torch.tensor(words.within(before, text, after)))
        self.text_ids = remembered(
            lambda text: torch.tensor([*words.alone(frames.answer + text.strip()), eos])
        )

    def _asked(self, question: str) -> Tensor:
        before, after = self.frames.question
        ids = self.words.within(before, question, after)
        start = ids.index(self.frames.opening) + 1
        return torch.tensor([*ids[:start], *[0] * self.places, *ids[start:]])

    def prefix(self, parts: VocabularyParts, direction: Direction, condition: Condition) -> Prefix:
        """Of VQ tokens `[C, I]` (understanding) or of C prompts (generation)."""
        if isinstance(condition, Tensor):
            return self._of_pictures(parts, condition)
        return of_ids(parts, [self.prompt_ids(prompt.strip()) for prompt in condition])

    def null(self, parts: VocabularyParts, direction: Direction, lengths: Sequence[int]) -> Prefix:
        if direction != "generation":
            raise ValueError(f"guidance: only the generation direction has it, got {direction!r}")
        return of_ids(parts, [self.null_ids]).take([0] * len(lengths))

    def null_lengths(self, lengths: Sequence[int]) -> list[int]:
        return [len(self.null_ids)] * len(lengths)

    def _of_pictures(self, parts: VocabularyParts, tokens: Tensor) -> Prefix:
        ids = self.question_ids.to(tokens.device).repeat(len(tokens), 1)
        ids[:, self.picture] = parts.picture_ids(tokens)
        return Prefix(parts.text_embedding(ids), [ids.shape[1]] * len(tokens))
