"""Passes through the language model: over targets that are known, or ready to write new ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from suder.models.base import Condition, Direction, Hidden
from suder.models.decoder.asking import after_picture, asked, asked_prefix
from suder.models.decoder.decoding import DecoderDecoding
from suder.models.decoder.hidden import hidden_states, row_ends
from suder.models.decoder.parts import Parts
from suder.models.decoder.prefix import Prefix, Prompts, check_positions
from suder.models.decoder.teacher_forcing import tokens_read
from suder.models.precision import guided, product_dtype


@dataclass(frozen=True)
class Passes:
    """Of one model, by its parts as they are now; `DecoderModel` says what the arguments mean.

    A condition stands beside its prefix for the words of an error alone.
    """

    parts: Parts
    prompts: Prompts
    positions: int

    def hidden(
        self,
        direction: Direction,
        condition: Condition,
        prefix: Prefix,
        rows: list[Tensor],
        group: int,
        guidance: float,
        questions: Sequence[str] | None,
    ) -> Hidden:
        """Hidden states that predict the targets, `rows`."""
        parts = self.parts
        count = len(prefix.lengths)
        if len(rows) != count * group:
            raise ValueError(
                f"targets: {count} conditions of group {group} take {count * group} targets, "
                f"got {len(rows)}"
            )
        read, own = rows, None
        if questions is not None:
            prefix, read, own = asked(self.prompts, direction, prefix, rows, questions)
        longest = max(map(len, read), default=0)
        longest += row_ends(parts, direction, longest)
        check_positions(prefix, longest, self.positions, condition)
        hidden = hidden_states(parts, direction, prefix, read, group)
        if own is not None:
            hidden = hidden[own.to(hidden.device)]
        if guidance != 1.0:
            null = self.prompts.null(parts, direction, prefix.lengths)
            each = null.take([row for row in range(count) for _ in range(group)])
            uncond = hidden_states(parts, direction, each, rows, 1)
            hidden = guided(hidden, uncond, guidance)
        sizes = torch.tensor([0, *map(len, rows)], device=parts.core.lm_head.weight.device)
        weight, bias = parts.last_layer(direction)
        dtype = product_dtype(weight)
        bias = None if bias is None else bias.to(dtype)
        return Hidden(hidden.to(dtype), torch.cat(rows), sizes.cumsum(0), weight.to(dtype), bias)

    def tokens(
        self,
        direction: Direction,
        condition: Sequence[str] | int,
        lengths: Sequence[int],
        group: int,
        guidance: float,
        questions: Sequence[str] | None,
    ) -> int:
        """How many `hidden` would read, padding included."""
        if isinstance(condition, int):
            prefix = [len(self.prompts.question_ids)] * condition
        else:
            prefix = [len(self.prompts.prompt_ids(prompt.strip())) for prompt in condition]
        width = int(self.parts.language_model.config.hidden_size)
        read = [length + row_ends(self.parts, direction, length) for length in lengths]
        if questions is not None:
            prefix = [self.prompts.picture.stop] * len(prefix)
            before = [len(after_picture(self.prompts, question)) for question in questions]
            read = [length + more for length, more in zip(lengths, before, strict=True)]
        count = tokens_read(prefix, read, group, width)
        if guidance != 1.0:
            null = self.prompts.null_lengths(prefix)
            count += tokens_read([n for n in null for _ in range(group)], read, 1, width)
        return count

    def decoding(
        self,
        direction: Direction,
        condition: Condition,
        prefix: Prefix,
        n: int,
        steps: int,
        guidance: float,
        questions: Sequence[str] | None,
        computing: Callable[[], AbstractContextManager[Any]],
    ) -> DecoderDecoding:
        """Reads the prefixes and stands ready to continue them."""
        parts = self.parts
        if questions is not None:
            prefix = asked_prefix(self.prompts, parts, direction, prefix, questions)
        longest = steps + row_ends(parts, direction, steps)
        check_positions(prefix, longest, self.positions, condition)
        if guidance != 1.0:
            prefix = prefix.followed_by(self.prompts.null(parts, direction, prefix.lengths))
        return DecoderDecoding(parts, direction, prefix, n, steps, guidance, computing)
