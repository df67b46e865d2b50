"""Pictures that a model drew itself, as the tokens that it drew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Of 255, between what tokens decode to here and a file of it: 16 bits round, and devices differ.
LEVELS = 16


def as_tokens(model: Any, pictures: Sequence[np.ndarray], said: Sequence[Any]) -> Tensor:
    """VQ tokens int64 `[B, I]` of pictures uint8 `[H, W, 3]`, for a model that reads those.

    Encoding a drawn picture again gives other tokens than were drawn, so another reward than the
    run's. Those that its row names are read if they are of this model: if they decode to it.

    Args:
        said: what stands as "tokens" in each picture's row, or None.
    """
    size = (model.image_size, model.image_size, 3)
    named = [
        i
        for i, (tokens, picture) in enumerate(zip(said, pictures, strict=True))
        if picture.shape == size and _could_be(model, tokens)
    ]
    own: dict[int, Tensor] = {}
    if named:
        rows = torch.tensor([said[i] for i in named], device=model.device)
        shown = model.decode(rows).cpu().numpy()
        drawn = zip(named, rows, shown, strict=True)
        own = {i: row for i, row, one in drawn if _near(pictures[i], one)}
    others = [i for i in range(len(pictures)) if i not in own]
    at_once = model.pictures_at_once
    for part in (others[i : i + at_once] for i in range(0, len(others), at_once)):
        codes = model.encode(model.pixels([pictures[i] for i in part]))
        own |= zip(part, codes, strict=True)
    return torch.stack([own[i] for i in range(len(pictures))])


def _could_be(model: Any, tokens: Any) -> bool:
    return (
        isinstance(tokens, list)
        and len(tokens) == model.num_image_tokens
        and all(type(one) is int and 0 <= one < model.image_vocab_size for one in tokens)
    )


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one.astype(np.int16) - other).max() <= LEVELS)
