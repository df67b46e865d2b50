"""Pictures to pixels, pixels to VQ tokens, and back, as Janus's processor and VQ model do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from suder.inputs.as_seen import WHITE, Colour
from suder.inputs.files import DataError
from suder.models.pictures import as_array, in_parts

# Pixels of the pictures that pass through the VQ model at once: bounds its memory. A layer of 128
# channels at full resolution, the widest of Janus-Pro's, is 0.5 GB then.
AT_ONCE = 1 << 20
LEVEL = 1 / 255  # of a colour, in units of its range


def to_pixels(images: Any, image_processor: Any, size: int) -> Tensor:
    """float32 `[B, 3, S, S]`: as the processor gives them, whose settings say what is done.

    Args:
        images: PIL pictures, uint8 arrays `[H, W, 3]`, or one uint8 array or tensor
            `[B, H, W, 3]`.

    Raises:
        DataError: the processor leaves a picture in another size than S.
    """
    if isinstance(images, Tensor):
        images = images.cpu().numpy()
    if isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[-1] == 3:
        raise ValueError(f"images: got one picture {images.shape}; pass a list of pictures")
    background = background_of(image_processor)
    arrays = [as_array(image, i, background) for i, image in enumerate(images)]
    whole = _of_size(image_processor, size)
    fits = [i for i, array in enumerate(arrays) if whole and array.shape == (size, size, 3)]
    pixels = torch.empty(len(arrays), 3, size, size)
    if fits:
        pixels[fits] = _normalised(np.stack([arrays[i] for i in fits]), image_processor)
    for i in sorted(set(range(len(arrays))) - set(fits)):
        pixels[i] = _processed(arrays[i], i, image_processor, size)
    return pixels


def _of_size(image_processor: Any, size: int) -> bool:
    """Whether the processor leaves a picture of the model's size as large as it is."""
    if not image_processor.do_resize:
        return True
    asked = image_processor.size
    sides = {asked["height"], asked["width"]}
    return sides == {size} and image_processor.min_size <= size


def _processed(array: np.ndarray, index: int, image_processor: Any, size: int) -> Tensor:
    found = torch.as_tensor(image_processor(images=[Image.fromarray(array)])["pixel_values"][0])
    if found.shape != (3, size, size):
        (height, width), (high, wide) = array.shape[:2], found.shape[1:]
        raise DataError(
            f"images[{index}]: {width} x {height} pixels become {wide} x {high} by this model's "
            f"picture processor, and the model takes {size} x {size}; see size, do_resize and "
            "do_pad in its preprocessor_config.json"
        )
    return found.float()


def encode(vqmodel: Any, image_processor: Any, pixels: Tensor) -> Tensor:
    """int64 `[B, I]`: the codes nearest in angle, of pixels as the processor gives them.

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
    pixels = _in_vq_range(pixels, image_processor)
    codebook = F.normalize(vqmodel.quantize.embedding.weight.float(), dim=-1)

    def codes(pixels: Tensor) -> Tensor:
        features = vqmodel.quant_conv(vqmodel.encoder(pixels.to(vqmodel.dtype)))
        features = F.normalize(features.float().flatten(2).transpose(1, 2), dim=-1)
        return (features @ codebook.T).argmax(-1)

    return _in_parts(codes, pixels, pixels.shape[-1])


def decode(vqmodel: Any, tokens: Tensor, size: int) -> Tensor:
    """uint8 `[B, S, S, 3]`; equal rows are decoded once, few at once.

    As in `encode`, a level changes with the number decoded at once only where the value before
    rounding is half a level but for its last bit.
    """
    if tokens.shape[0] == 0:
        return torch.zeros(0, size, size, 3, dtype=torch.uint8, device=tokens.device)
    rows, place = torch.unique(tokens, dim=0, return_inverse=True)
    pixels = _in_parts(vqmodel.decode, rows, size).float()
    levels = ((pixels * 0.5 + 0.5) / LEVEL).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()[place]


def _in_parts(run: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """`run` of pictures of this size, few at once."""
    return in_parts(run, rows, max(2, AT_ONCE // (size * size)))


def background_of(image_processor: Any) -> Colour:
    """What the processor pads with, and transparency is laid on."""
    red, green, blue = getattr(image_processor, "background_color", None) or WHITE
    return int(red), int(green), int(blue)


def _normalised(arrays: np.ndarray, image_processor: Any) -> Tensor:
    pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2).float()
    factor, mean, deviation = _scale(image_processor, pixels.device)
    return (pixels * factor - mean) / deviation


def _in_vq_range(pixels: Tensor, image_processor: Any) -> Tensor:
    """In [-1, 1], which the VQ model reads and draws whatever the vision tower is shown.

    So it is in DeepSeek's code. The published processors give just that.
    """
    factor, mean, deviation = _scale(image_processor, pixels.device)
    if factor == LEVEL and bool((mean == 0.5).all() and (deviation == 0.5).all()):
        return pixels
    levels = (pixels.float() * deviation + mean) / factor
    return (levels * LEVEL - 0.5) / 0.5


def _scale(image_processor: Any, device: torch.device) -> tuple[float, Tensor, Tensor]:
    """Factor, mean and deviation of (level * factor - mean) / deviation."""
    factor = image_processor.rescale_factor if image_processor.do_rescale else 1.0
    mean, deviation = (0.0, 1.0)
    if image_processor.do_normalize:
        mean, deviation = image_processor.image_mean, image_processor.image_std
    both = [torch.as_tensor(one, device=device).float().expand(3) for one in (mean, deviation)]
    return float(factor), both[0].view(3, 1, 1), both[1].view(3, 1, 1)
