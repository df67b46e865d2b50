"""Pictures to VQ tokens and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from suder.testing.findings import Findings
from suder.testing.subject import Subject
from suder.testing.tolerances import OTHER_CODES

# What a picture may have been taken for, each undone.
TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda one: one,
    "with red and blue exchanged": lambda one: one.flip(3),
    "mirrored": lambda one: one.flip(2),
    "upside down": lambda one: one.flip(1),
    "with rows and columns exchanged": lambda one: one.transpose(1, 2),
    "as a negative": lambda one: -one,
}
LIKE = 0.5  # correlation of what is the same picture; noise has none
CONTRAST = 0.6


def pictures(subject: Subject, found: Findings) -> None:
    """pixels, VQ tokens and decoded pictures have their shapes, dtypes and ranges, in any batch"""
    model, images = subject.model, subject.images
    count, size = len(images), model.image_size
    pixels = model.pixels(images)
    told = f"{pixels.dtype} {list(pixels.shape)} on {pixels.device}"
    fits = pixels.shape == (count, 3, size, size) and pixels.dtype == model.dtype
    found.holds(
        fits and pixels.device == model.device,
        f"pixels: {told}, not {model.dtype} {[count, 3, size, size]} on {model.device}",
    )
    arrays = [np.asarray(image) for image in images]
    found.same(
        "pixels of PIL pictures", model.pixels([Image.fromarray(one) for one in arrays]), pixels
    )
    codes = model.encode(pixels)
    shape = (count, model.num_image_tokens)
    found.holds(
        codes.dtype == torch.int64 and codes.shape == shape,
        f"encode: {codes.dtype} {list(codes.shape)}, not torch.int64 {list(shape)}",
    )
    low, high = int(codes.min()), int(codes.max())
    if not found.holds(
        low >= 0 and high < model.image_vocab_size,
        f"encode: codes from {low} to {high}, of {model.image_vocab_size}",
    ):
        return
    found.same("encode a second time", model.encode(pixels), codes)
    alone = torch.cat([model.encode(one[None]) for one in pixels])
    other, allowed = 1 - _share(alone, codes), OTHER_CODES[model.dtype]
    found.holds(
        other <= allowed, f"encode: {other:.1%} of the codes are others one by one ({allowed:.0%})"
    )
    drawn = model.decode(codes)
    found.holds(
        drawn.dtype == torch.uint8 and drawn.shape == (count, size, size, 3),
        f"decode: {drawn.dtype} {list(drawn.shape)}, not torch.uint8 {[count, size, size, 3]}",
    )
    every = torch.arange(shape[1], device=model.device) * model.image_vocab_size // shape[1]
    twice = model.decode(torch.stack([every, codes[0], every]))
    found.same("decode of equal rows", twice[2], twice[0])
    apart = (model.decode(codes[:1]).int() - drawn[:1].int()).abs().max()
    found.holds(int(apart) <= 1, f"decode: a level differs by {int(apart)} alone and in a batch")
    found.note(f"{len(codes.unique())} codes in {count} pictures")


def vq_round_trip(subject: Subject, found: Findings) -> None:
    """a decoded picture is the picture, upright and in its colours, and has its own codes again"""
    model, codes = subject.model, subject.codes
    decoded = model.decode(codes)
    again = model.encode(model.pixels(decoded))
    own = _share(again, codes)
    other = max(_share(again, codes.roll(turn, 0)) for turn in range(1, len(codes)))
    # In what the model was shown, levels are the first picture's up to a factor and an offset.
    shown = subject.pixels.float().cpu().permute(0, 2, 3, 1)
    alike = {name: _alike(turn(decoded.float().cpu()), shown) for name, turn in TURNS.items()}
    best = max(alike, key=lambda name: alike[name])
    found.note(f"likeness {alike['as it is']:.2f}, {own:.0%} of the codes come back")
    if alike[best] < LIKE:
        found.note("the VQ model restores no picture (random weights?), so this says little")
        return
    found.holds(
        alike[best] < alike["as it is"] + 0.1,
        f"decoded pictures are like those encoded {best} ({alike[best]:.2f}) more than as they are "
        f"({alike['as it is']:.2f})",
    )
    found.holds(
        own > other,
        f"{own:.1%} of the codes come back, and {other:.1%} of them are another picture's",
    )
    levels = model.pixels(decoded).float().cpu().permute(0, 2, 3, 1)
    contrast, shift = float(levels.std() / shown.std()), float((levels.mean() - shown.mean()).abs())
    found.holds(
        CONTRAST < contrast < 1 / CONTRAST and shift < float(shown.std()),
        f"decoded pictures have {contrast:.2f} times the contrast, and are {shift:.2f} brighter or "
        f"darker where pixels spread by {float(shown.std()):.2f}; is the normalisation undone?",
    )


def _alike(one: Tensor, other: Tensor) -> float:
    """Correlation of levels `[B, S, S, 3]`, each colour about its own mean."""
    one, other = (part - part.mean((0, 1, 2)) for part in (one, other))
    return float((one * other).mean() / (one.std() * other.std()).clamp_min(1e-6))


def _share(one: Tensor, other: Tensor) -> float:
    return float((one == other).double().mean())
