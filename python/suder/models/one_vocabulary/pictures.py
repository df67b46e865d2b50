"""Pictures as square pixels for a VQ model, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from suder.inputs.as_seen import Colour
from suder.models.pictures import as_array

Statistics = tuple[Sequence[float], Sequence[float]]  # mean and deviation of values in [0, 1]


def to_pixels(images: Any, size: int, background: Colour, statistics: Statistics) -> Tensor:
    """float32 `[B, 3, S, S]`, normalised.

    Args:
        images: PIL pictures, uint8 arrays `[H, W, 3]`, or one uint8 array or tensor
            `[B, H, W, 3]`. Those of another size are made square by `background`, and resized.
    """
    if isinstance(images, Tensor):
        images = images.cpu().numpy()
    if isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[-1] == 3:
        raise ValueError(f"images: got one picture {images.shape}; pass a list of pictures")
    arrays = [
        _square(as_array(one, i, background), size, background) for i, one in enumerate(images)
    ]
    if not arrays:
        return torch.zeros(0, 3, size, size)
    mean, deviation = _shaped(statistics, torch.device("cpu"))
    return (torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255 - mean) / deviation


def to_levels(pixels: Tensor, statistics: Statistics) -> Tensor:
    """uint8 `[B, S, S, 3]` of what a VQ model gives."""
    mean, deviation = _shaped(statistics, pixels.device)
    levels = ((pixels.float() * deviation + mean) * 255).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _square(array: np.ndarray, size: int, background: Colour) -> np.ndarray:
    height, width, _ = array.shape
    if (height, width) == (size, size):
        return array
    side = max(height, width)
    paper = Image.new("RGB", (side, side), background)
    paper.paste(Image.fromarray(array), ((side - width) // 2, (side - height) // 2))
    return np.asarray(paper.resize((size, size), Image.Resampling.LANCZOS))


def _shaped(statistics: Statistics, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, deviation = (torch.tensor(list(values), device=device) for values in statistics)
    return mean.view(3, 1, 1), deviation.view(3, 1, 1)
