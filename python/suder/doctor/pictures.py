"""The VQ model: whether a picture survives it, and its codebook."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from suder.doctor.findings import Finding
from suder.doctor.patient import Patient
from suder.models.janus.adapter import Janus
from suder.storage.shown import counted

GAIN = 3.0  # dB over the picture's mean colour alone; below, nothing of the picture is left
POOR = 15.0  # dB; trained VQ models give 18 to 30
LENGTHS = (0.2, 5.0)  # of a code; those of trained codebooks are about 1
SPREAD = 20.0  # of the longest to the shortest


def pictures(patient: Patient) -> Iterator[Finding]:
    """PSNR of pictures encoded and decoded; codes in use; lengths of codes."""
    model = patient.model
    shown = [patient.picture] if patient.picture is not None else patient.pairs.pictures[:4]
    pixels = model.pixels(list(shown))
    codes = model.encode(pixels)
    again = model.pixels(model.decode(codes)).float()
    ends = [np.full((model.image_size, model.image_size, 3), level, np.uint8) for level in (0, 255)]
    dark, light = model.pixels(ends).float()
    gaps = (light - dark).mean((1, 2))[:, None, None]
    error = ((again - pixels.float()) / gaps).square().mean()
    flat = pixels.float().mean((2, 3), keepdim=True)
    blank = ((flat - pixels.float()) / gaps).square().mean()
    found, base = _decibels(error), _decibels(blank)
    used = len(codes.unique())
    text = (
        f"{counted(len(shown), 'picture')} through the VQ model: PSNR {found:.1f} dB ({base:.1f} "
        f"of their mean colours), {used} of {model.image_vocab_size} codes"
    )
    values = {"psnr": found, "psnr_of_mean_colour": base, "codes": used}
    todo = (
        "look at one: suder sample --image; the VQ model's weights, or the processor's mean and std"
    )
    if not found > base + GAIN:
        yield Finding("wrong", f"{text}: nothing of them is left", todo, values)
    elif found < POOR:
        yield Finding("odd", f"{text}: little of them is left", todo, values)
    else:
        yield Finding("fine", text, values=values)
    if used == 1:
        yield Finding("wrong", "every patch of every picture has the same code", todo)
    yield from _codebook(model)


def _codebook(model: Any) -> Iterator[Finding]:
    """Where the adapter shows one."""
    vqmodel = getattr(getattr(model, "parts", None), "vqmodel", None)
    book = getattr(getattr(getattr(vqmodel, "quantize", None), "embedding", None), "weight", None)
    if book is None:
        return
    lengths = torch.linalg.vector_norm(book.float(), dim=-1)
    low, middle, high = (float(one) for one in (lengths.min(), lengths.median(), lengths.max()))
    text = (
        f"codebook {list(book.shape)}: codes of length {low:.3g} to {high:.3g}, median {middle:.3g}"
    )
    values = {"code_length": [low, middle, high]}
    usual = LENGTHS[0] < middle < LENGTHS[1] and high < SPREAD * low
    if usual or not isinstance(model, Janus):  # of others, lengths are part of what a code means
        yield Finding("fine", text, values=values)
        return
    yield Finding(
        "odd",
        f"{text}; suder compares directions alone, transformers' own encode goes by lengths, too",
        "compare the codebook with the original's",
        values,
    )


def _decibels(error: torch.Tensor) -> float:
    return -10 * math.log10(max(float(error), 1e-12)) if error.isfinite() else -math.inf
