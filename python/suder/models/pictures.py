"""What adapters do alike with pictures on their way into a VQ model and out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from suder.inputs.as_seen import Colour, as_seen


def as_array(image: Any, index: int, background: Colour) -> np.ndarray:
    """uint8 `[H, W, 3]` of a PIL picture, or of such an array or tensor; the index-th of some."""
    if isinstance(image, Image.Image):
        return as_seen(image, background)
    array = image.cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise ValueError(
            f"images[{index}]: takes a PIL picture or a uint8 array [H, W, 3], "
            f"got {array.dtype} {array.shape}"
        )
    return array


def in_parts(run: Callable[[Tensor], Tensor], rows: Tensor, most: int) -> Tensor:
    """`run` of some rows, at most `most` (from 2) at once but never a single one.

    A batch of one takes another convolution path, whose rounding differs more.
    """
    count = rows.shape[0]
    if count == 1:
        rows = torch.cat([rows, rows])
    parts = min(-(-len(rows) // most), len(rows) // 2)
    return torch.cat([run(part) for part in rows.tensor_split(parts)])[:count]
