"""Pairs of a picture and a text that a model reads: which there are, and which at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from suder.method.cut import in_parts
from suder.models.base import UnifiedModel

PAIRS_AT_ONCE = 128


class Batch(NamedTuple):
    """Pairs of one pass, by their numbers; `group` consecutive ones share their condition."""

    pairs: list[int]
    group: int


def batches(
    count: int,
    tokens: Callable[[Sequence[Sequence[int]]], int],
    size: Callable[[list[int]], int],
    most: int,
    limit: int | None,
    seen: Sequence[Hashable] = (),
) -> Iterator[Batch]:
    """Pairs that may be read at once, the shortest first.

    Args:
        count: of the pairs.
        tokens: that a pass of groups reads, each group's pairs sharing their condition.
        size: of a group, by which they are sorted.
        most: pairs of a pass.
        limit: tokens of a pass, but at least one pair's; None: none.
        seen: of each pair, its picture, where equal ones are to be read once.
    """

    def fit(groups: list[list[int]], count: int) -> bool:
        few = count * len(groups[0]) <= most
        return few and (limit is None or tokens(groups[:count]) <= limit)

    def part_fits(pairs: list[int], count: int) -> bool:
        return fit([pairs[:count]], 1)

    together: dict[Hashable, list[int]] = {}
    for i in range(count):
        together.setdefault(seen[i] if seen else i, []).append(i)
    groups = [part for pairs in together.values() for part in in_parts(pairs, part_fits)]
    groups.sort(key=lambda pairs: (len(pairs), size(pairs)))
    for group, alike in groupby(groups, len):
        for part in in_parts(list(alike), fit):
            yield Batch([i for pairs in part for i in pairs], group)


class Shown:
    """Pictures that are to be read, equal ones once.

    Args:
        model: that reads them.
        images: PIL pictures, uint8 arrays, int64 VQ tokens `[B, I]`, or what `model.pixels` gives.

    Attributes:
        codes: of each picture, equal for equal ones.
    """

    def __init__(self, model: UnifiedModel, images: Any) -> None:
        self.model = model
        self.drawn = are_tokens(images)
        self.ready = isinstance(images, Tensor) and images.is_floating_point()
        if self.drawn:
            images, inverse = torch.unique(images.to(model.device), dim=0, return_inverse=True)
            self.codes: list[int] = inverse.tolist()
        elif self.ready:
            self.codes = list(range(len(images)))
        else:
            first, place = distinct([_content(image) for image in images])
            self.codes = [first[i] for i in place]
        self.images = images

    def read(self, codes: Sequence[int]) -> Tensor:
        """The condition that some pictures are. Made now: all at once would be the most that
        scoring holds.
        """
        if self.ready or (self.drawn and self.model.reads_tokens):
            some: Tensor = self.images[list(codes)]
            return some
        chosen = self.model.decode(self.images[list(codes)]) if self.drawn else None
        return self.model.pixels([self.images[i] for i in codes] if chosen is None else chosen)


def are_tokens(images: Any) -> bool:
    return isinstance(images, Tensor) and images.dtype == torch.int64


def _content(image: Any) -> Hashable:
    """Equal for equal pixels; of a PIL picture, which holds more than those, for the same one."""
    if isinstance(image, np.ndarray | Tensor):
        pixels = np.asarray(image.cpu() if isinstance(image, Tensor) else image)
        return pixels.shape, pixels.dtype, blake2b(pixels.tobytes()).digest()
    return id(image)


def check_group(name: str, count: int, group: int) -> None:
    if group < 1 or count % group:
        raise ValueError(f"{name}: {count} of them are no whole number of groups of {group}")


def places(inputs: str, given: int, candidates: str, count: int, group: int) -> list[int]:
    """Which input each candidate belongs to."""
    if given == count:
        return list(range(count))
    if given * group != count:
        raise ValueError(
            f"{inputs}: {count} {candidates} in groups of {group} take {count // group} or {count} "
            f"{inputs}, got {given}"
        )
    return [i // group for i in range(count)]


def distinct(keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Where each distinct key stands first, and which of those each key is.

    Sampled candidates repeat often, the more so the longer a model has been trained.
    """
    first: dict[Hashable, int] = {}
    where: list[int] = []
    for i, key in enumerate(keys):
        if key not in first:
            first[key] = len(where)
            where.append(i)
    return where, [first[key] for key in keys]
