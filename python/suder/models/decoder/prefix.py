"""What stands before the targets, embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from suder.models.base import Condition, Direction
from suder.models.decoder.parts import Parts

# Texts whose ids are remembered: tokenising costs more than the rest of a small model's prefix.
REMEMBERED = 1 << 16


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


class Prompts(Protocol):
    """Ids of everything that is asked of one model.

    Attributes:
        question_ids: int64 `[L]`, what stands before a text about a picture, with a place for each
            token of the picture.
        asked_ids: the same of another question.
        picture: those places.
        prompt_ids: what stands before the picture of a prompt.
        text_ids: of a text as an answer, ending in EOS.
    """

    question_ids: Tensor
    asked_ids: Callable[[str], Tensor]
    picture: slice
    prompt_ids: Callable[[str], Tensor]
    text_ids: Callable[[str], Tensor]

    def prefix(self, parts: Any, direction: Direction, condition: Condition) -> Prefix:
        """Of pictures (understanding) or of prompts (generation)."""
        ...

    def null(self, parts: Any, direction: Direction, lengths: Sequence[int]) -> Prefix:
        """The unconditional prefix of each of C conditions, given the conditions' lengths."""
        ...

    def null_lengths(self, lengths: Sequence[int]) -> list[int]:
        """Of the unconditional prefixes, given the conditions'."""
        ...


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


def remembered(ids_of: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
    @lru_cache(REMEMBERED)
    def ids(text: str) -> Tensor:
        # First asked for while sampling, ids would be of no use to a gradient ever after.
        with torch.inference_mode(False):
            return ids_of(text)

    return ids


def of_ids(parts: Parts, ids: Sequence[Tensor]) -> Prefix:
    device = parts.core.get_input_embeddings().weight.device
    padded = pad_sequence(list(ids), batch_first=True).to(device)
    return Prefix(parts.text_embedding(padded), [len(row) for row in ids])
