"""An adapter under test, what it is shown and told, and its log-probabilities by every way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from suder.models.base import (
    Condition,
    Decoding,
    Direction,
    Hidden,
    Targets,
    UnifiedModel,
    inference,
)
from suder.settings.learning import Lora
from suder.world.catalogue import shapes_pictures
from suder_ext import linear_logprob

GUIDANCE = 3.0
# Directions, each with the scales of guidance that its likelihood is checked under.
POLICIES: tuple[tuple[Direction, float], ...] = (
    ("understanding", 1.0),
    ("generation", 1.0),
    ("generation", GUIDANCE),
)


class Subject:
    """`model` with C pictures, and C prompts that serve as texts about them, too."""

    def __init__(
        self,
        model: UnifiedModel,
        prompts: Sequence[str],
        images: Sequence[Any] | None,
        load: Callable[[Path], UnifiedModel],
        lora: Lora,
    ) -> None:
        self.model, self.prompts, self.load, self.lora = model, list(prompts), load, lora
        self._images = images

    @cached_property
    def images(self) -> list[Any]:
        if self._images is not None:
            return list(self._images)[: len(self.prompts)]
        return drawn_pictures(len(self.prompts), self.model.image_size)

    @cached_property
    def pixels(self) -> Tensor:
        return self.model.pixels(self.images)

    @cached_property
    def codes(self) -> Tensor:
        return self.model.encode(self.pixels)

    @cached_property
    def ids(self) -> list[Tensor]:
        return self.model.tokenize(self.prompts)

    def given(self, direction: Direction) -> tuple[Condition, list[Tensor]]:
        """C conditions and a target of each; targets of texts differ in length."""
        if direction == "generation":
            return self.prompts, list(self.codes)
        return self.pixels, [ids.to(self.model.device) for ids in self.ids]

    def every(self, direction: Direction) -> tuple[Condition, list[Tensor], int]:
        """C conditions, the C targets of each in an order of its own, and C."""
        condition, targets = self.given(direction)
        count = len(targets)
        places = [(i + j) % count for i in range(count) for j in range(count)]
        return condition, [targets[place] for place in places], count

    def logprob(self, model: UnifiedModel | None = None) -> Tensor:
        """By teacher forcing: both directions' one after the other, float32 `[T]`."""
        model = model or self.model
        with inference(model):
            return torch.cat([
                logprob(forced(model, direction, *self.given(direction)))
                for direction in ("understanding", "generation")
            ])  # fmt: skip

    @property
    def dtype(self) -> torch.dtype:
        """Of the products."""
        with inference(self.model):
            return forced(self.model, "understanding", self.pixels[:1], self.ids[:1]).hidden.dtype


def as_given(direction: Direction, targets: Sequence[Tensor]) -> Targets:
    return torch.stack(list(targets)) if direction == "generation" else list(targets)


def forced(
    model: UnifiedModel,
    direction: Direction,
    condition: Condition,
    targets: Sequence[Tensor],
    group: int = 1,
    guidance: float = 1.0,
) -> Hidden:
    return model(direction, condition, as_given(direction, targets), group, guidance)


def logprob(hidden: Hidden) -> Tensor:
    return linear_logprob(hidden.hidden, hidden.weight, hidden.target, hidden.bias)


def stepped(
    model: UnifiedModel,
    direction: Direction,
    condition: Condition,
    targets: Sequence[Tensor],
    n: int = 1,
    guidance: float = 1.0,
) -> Tensor:
    """log p of all targets, in order, each written one token at a time by the Decoding."""
    longest = max(map(len, targets))
    rows = pad_sequence(list(targets), batch_first=True).to(model.device)
    with inference(model), model.computing():
        decoding = model.start(direction, condition, n, longest, guidance)
        decoding.make_room()
        written = write(decoding, rows, range(longest))
    return torch.cat([row[: len(ids)] for row, ids in zip(written, targets, strict=True)])


def write(decoding: Decoding, rows: Tensor, steps: range) -> Tensor:
    """Appends columns of `rows[R, L]` one by one; their log p `[R, len(steps)]` before each.

    Where a picture's rows end in a token that is read and not drawn, the decoding has the length of
    a `row`, and is told when one ends.
    """
    columns = []
    row = getattr(decoding, "row", 0)
    for step in steps:
        hidden = decoding.features()
        columns.append(linear_logprob(hidden, decoding.weight, rows[:, step], decoding.bias))
        if step + 1 < rows.shape[1]:
            ends = [True] if row and (step + 1) % row == 0 else []
            decoding.advance(rows[:, step], step + 1, *ends)
    return torch.stack(columns, 1)


def drawn_pictures(count: int, size: int) -> list[np.ndarray]:
    """uint8 `[S, S, 3]`: shapes on a ground, which the embedded models have learnt to restore."""
    drawn = [Image.fromarray(one) for one in shapes_pictures(count, seed=0)]
    return [np.asarray(one.resize((size, size))) for one in drawn]


@contextmanager
def trained(weights: Sequence[Tensor]) -> Iterator[None]:
    """Other numbers in these weights inside, as after a large step; their own bits afterwards."""
    kept = [weight.detach().clone() for weight in weights]
    generator = torch.Generator().manual_seed(0)
    try:
        for weight in weights:
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            size = weight.detach().abs().mean().clamp_min(0.02)
            weight.data += 0.3 * size * noise
        yield
    finally:
        for weight, before in zip(weights, kept, strict=True):
            weight.data.copy_(before)
