"""Pictures to pixels, pixels to VQ tokens, and back, as Janus's processor and VQ model do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from suder.inputs.as_seen import WHITE, Colour, as_seen

# Pixels of the pictures that pass through the VQ model at once: bounds its memory. A layer of 128
# channels at full resolution, the widest of Janus-Pro's, is 0.5 GB then.
AT_ONCE = 1 << 20


def to_pixels(images: Any, image_processor: Any, size: int) -> Tensor:
    """float32 `[B, 3, S, S]`, rescaled and normalised by the processor's mean and deviation.

    Args:
        images: PIL pictures, uint8 arrays `[H, W, 3]`, or one uint8 array or tensor
            `[B, H, W, 3]`. Other sizes than S are resized and padded by the processor.
    """
    if isinstance(images, Tensor):
        images = images.cpu().numpy()
    if isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[-1] == 3:
        raise ValueError(f"images: got one picture {images.shape}; pass a list of pictures")
    background = background_of(image_processor)
    arrays = [_array(image, i, background) for i, image in enumerate(images)]
    if not arrays:
        return torch.zeros(0, 3, size, size)
    if all(array.shape == (size, size, 3) for array in arrays):
        return _normalised(np.stack(arrays), image_processor)
    prepared = image_processor(
        images=[Image.fromarray(array) for array in arrays], return_tensors="pt"
    )
    pixels: Tensor = prepared["pixel_values"]
    return pixels.float()


def encode(vqmodel: Any, pixels: Tensor) -> Tensor:
    """int64 `[B, I]`: the codes nearest in angle.

    Codes and features are l2-normalised before they are compared, as in DeepSeek's own VQ model
    (`codebook_l2_norm`) and as decoding does; transformers' quantiser compares them raw.

    However many pictures there are, few are encoded at once. How many changes the last bit of the
    features (the convolutions' products are cut differently), so a code changes only where two are
    equally near but for that.
    """
    if pixels.shape[0] == 0:
        return torch.zeros(
            0, vqmodel.config.num_patches**2, dtype=torch.int64, device=pixels.device
        )
    codebook = F.normalize(vqmodel.quantize.embedding.weight.float(), dim=-1)

    def codes(pixels: Tensor) -> Tensor:
        features = vqmodel.quant_conv(vqmodel.encoder(pixels.to(vqmodel.dtype)))
        features = F.normalize(features.float().flatten(2).transpose(1, 2), dim=-1)
        return (features @ codebook.T).argmax(-1)

    return _in_parts(codes, pixels, pixels.shape[-1])


def decode(vqmodel: Any, image_processor: Any, tokens: Tensor, size: int) -> Tensor:
    """uint8 `[B, S, S, 3]`; equal rows are decoded once, few at once.

    As in `encode`, a level changes with the number decoded at once only where the value before
    rounding is half a level but for its last bit.
    """
    if tokens.shape[0] == 0:
        return torch.zeros(0, size, size, 3, dtype=torch.uint8, device=tokens.device)
    rows, place = torch.unique(tokens, dim=0, return_inverse=True)
    pixels = _in_parts(vqmodel.decode, rows, size).float()
    mean, deviation = _statistics(image_processor, pixels.device)
    levels = ((pixels * deviation + mean) / image_processor.rescale_factor).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()[place]


def _in_parts(run: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """`run` of pictures of this size, few at once but never a single one.

    A batch of one takes another convolution path, whose rounding differs more.
    """
    count = rows.shape[0]
    if count == 1:
        rows = torch.cat([rows, rows])
    most = max(2, AT_ONCE // (size * size))
    parts = min(-(-len(rows) // most), len(rows) // 2)
    return torch.cat([run(part) for part in rows.tensor_split(parts)])[:count]


def background_of(image_processor: Any) -> Colour:
    """What the processor pads with, and transparency is laid on."""
    red, green, blue = getattr(image_processor, "background_color", None) or WHITE
    return int(red), int(green), int(blue)


def _array(image: Any, index: int, background: Colour) -> np.ndarray:
    if isinstance(image, Image.Image):
        return as_seen(image, background)
    array = image.cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise ValueError(
            f"images[{index}]: takes a PIL picture or a uint8 array [H, W, 3], "
            f"got {array.dtype} {array.shape}"
        )
    return array


def _normalised(arrays: np.ndarray, image_processor: Any) -> Tensor:
    mean, deviation = _statistics(image_processor, torch.device("cpu"))
    pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2).float()
    return (pixels * image_processor.rescale_factor - mean) / deviation


def _statistics(image_processor: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    mean = torch.tensor(list(image_processor.image_mean), device=device)
    deviation = torch.tensor(list(image_processor.image_std), device=device)
    return mean.view(3, 1, 1), deviation.view(3, 1, 1)
