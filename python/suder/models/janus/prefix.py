"""What stands before the targets: the tokens of prompts, questions and pictures, embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from suder.models.base import Condition, Direction
from suder.models.janus.layout import caption_ids, generation_ids, null_ids, understanding_ids
from suder.models.janus.parts import Parts

# Texts whose ids are remembered: tokenising costs more than the rest of a small model's prefix.
REMEMBERED = 1 << 16

NullPrompt = Literal["fixed", "padded"]


class Prefix(NamedTuple):
    """Embeddings `[C, P, D]`, right-padded, and the C lengths."""

    embeddings: Tensor
    lengths: list[int]

    def take(self, rows: Sequence[int]) -> Prefix:
        index = torch.tensor(rows, dtype=torch.int64, device=self.embeddings.device)
        return Prefix(self.embeddings[index], [self.lengths[row] for row in rows])

    def widened(self, multiple: int) -> Prefix:
        """Padded to a multiple of so many columns."""
        columns = -self.embeddings.shape[1] % multiple
        return Prefix(F.pad(self.embeddings, (0, 0, 0, columns)), self.lengths)

    def followed_by(self, other: Prefix) -> Prefix:
        width = max(self.embeddings.shape[1], other.embeddings.shape[1])
        both = [
            F.pad(prefix.embeddings, (0, 0, 0, width - prefix.embeddings.shape[1]))
            for prefix in (self, other)
        ]
        return Prefix(torch.cat(both), self.lengths + other.lengths)


def beyond(prefix: int, target: int, limit: int) -> str:
    """Why `target` tokens cannot follow `prefix` of them in a model of `limit` positions, or ""."""
    if prefix + target - 1 <= limit:  # the last token is never read
        return ""
    return f"{prefix} tokens and {target} of the answer are more than the model's {limit} positions"


def check_positions(prefix: Prefix, target: int, limit: int, condition: Condition) -> None:
    """Raises ValueError where targets of `target` tokens would end beyond the model's positions."""
    longest = max(prefix.lengths, default=0)
    if why := beyond(longest, target, limit):
        row = prefix.lengths.index(longest)
        given = "a picture" if isinstance(condition, Tensor) else f"prompt {condition[row][:60]!r}"
        raise ValueError(f"{given}: {why}; give a shorter text, or a smaller max_new_tokens")


class Prompts:
    """Ids of everything that is asked of one model, by its processor's chat template."""

    def __init__(
        self, processor: Any, image_token_id: int, question: str, null_prompt: NullPrompt
    ) -> None:
        if null_prompt not in ("fixed", "padded"):
            raise ValueError(f"null_prompt: takes 'fixed' or 'padded', got {null_prompt!r}")
        self.processor = processor
        self.null_prompt = null_prompt
        self.question_ids = understanding_ids(processor, question)
        places = (self.question_ids == image_token_id).nonzero().flatten()
        self.picture = slice(int(places[0]), int(places[-1]) + 1)
        self.prompt_ids = _remembered(lambda text: generation_ids(processor, text))
        self.text_ids = _remembered(lambda text: caption_ids(processor, text))

    def prefix(self, parts: Parts, direction: Direction, condition: Condition) -> Prefix:
        """Of pixels `[C, 3, S, S]` (understanding) or of C prompts (generation)."""
        if direction == "understanding":
            if not isinstance(condition, Tensor) or condition.ndim != 4:
                raise TypeError("condition: understanding takes pixels [C, 3, S, S]; see pixels()")
            return self._of_pictures(parts, condition)
        if isinstance(condition, Tensor | str):
            raise TypeError(f"condition: generation takes a list of str, got {type(condition)}")
        return _of_ids(parts, [self.prompt_ids(prompt.strip()) for prompt in condition])

    def null(self, parts: Parts, direction: Direction, lengths: Sequence[int]) -> Prefix:
        """The unconditional prefix of each of C conditions, given the conditions' lengths."""
        if direction != "generation":
            raise ValueError(f"guidance: only the generation direction has it, got {direction!r}")
        frame = null_ids(self.processor, self.prompt_ids(""))
        each = self.null_lengths(lengths)
        sizes = sorted(set(each))
        place = [sizes.index(length) for length in each]
        ids = [torch.cat([frame[:1], frame[1:2].expand(n - 2), frame[-1:]]) for n in sizes]
        return _of_ids(parts, ids).take(place)

    def null_lengths(self, lengths: Sequence[int]) -> list[int]:
        """Of the unconditional prefixes, given the conditions'."""
        if self.null_prompt == "fixed":
            return [len(self.prompt_ids(""))] * len(lengths)
        return list(lengths)

    def _of_pictures(self, parts: Parts, pixels: Tensor) -> Prefix:
        weight = parts.core.get_input_embeddings().weight
        features = parts.picture_features(pixels.to(weight.device, weight.dtype))
        words = parts.text_embedding(self.question_ids.to(weight.device))
        words = words.expand(len(pixels), -1, -1)
        before, after = words[:, : self.picture.start], words[:, self.picture.stop :]
        embeddings = torch.cat([before, features.to(words.dtype), after], 1)
        return Prefix(embeddings, [embeddings.shape[1]] * len(pixels))


def _remembered(ids_of: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
    @lru_cache(REMEMBERED)
    def ids(text: str) -> Tensor:
        # First asked for while sampling, ids would be of no use to a gradient ever after.
        with torch.inference_mode(False):
            return ids_of(text)

    return ids


def _of_ids(parts: Parts, ids: Sequence[Tensor]) -> Prefix:
    device = parts.core.get_input_embeddings().weight.device
    padded = pad_sequence(list(ids), batch_first=True).to(device)
    return Prefix(parts.text_embedding(padded), [len(row) for row in ids])
