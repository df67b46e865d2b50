"""Trains the VQ model: pictures to tokens and back.

transformers' `JanusVQVAE.forward` decodes from integer tokens, so no reconstruction gradient
reaches the encoder through it. The step here is the straight-through estimator of van den Oord et
al. (arXiv 1711.00937, section 3.2) on the unit sphere: features and codes are both l2-normalised
(arXiv 2110.04627, section 3.2), as Janus's own quantiser has it.

What each token stands for is given: the cluster of its own patch (`patches.py`), taught by
cross-entropy. Left to find tokens by itself, the encoder, whose attention and normalisation see the
whole picture, writes the whole picture into every token: blank background took 42 of 256 codes,
and a language model has to guess which. No code can die either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from transformers.models.janus.modeling_janus import JanusVQVAE

from suder.pretrain.patches import cluster_patches, codes_of, nearest_centres
from suder.pretrain.schedule import up_then_cosine
from suder.settings.fields import Positive, Section

Log = Callable[[dict[str, float]], None]


class VQSettings(Section):
    """Of the VQ stage."""

    pictures: Positive = Field(default=4096, description="made once, then drawn from")
    steps: Positive = Field(default=800, description="optimiser steps")
    batch: Positive = Field(default=32, description="pictures a step")
    lr: Annotated[float, Field(gt=0.0)] = Field(
        default=3e-3, description="highest rate of the cycle"
    )
    naming: Annotated[float, Field(ge=0.0)] = Field(
        default=0.1, description="weight of the cross-entropy that teaches what tokens stand for"
    )
    codes: Literal["random", "patches"] = Field(
        default="random",
        description="where codes begin: anywhere on the sphere, or alike where patches are, which "
        "is learnt the sooner where patches are many",
    )
    temperature: Annotated[float, Field(gt=0.0)] = Field(
        default=0.07, description="of that cross-entropy, over cosines"
    )


def encode(vq: JanusVQVAE, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest codes of pixels `[B, 3, S, S]` in [-1, 1]: tokens int64 `[B, I]`, and the features.

    Features are float32 `[B, I, code]` of unit length and carry gradient.
    """
    features = F.normalize(vq.quant_conv(vq.encoder(pixels)).flatten(2).transpose(1, 2), dim=-1)
    return (features.detach() @ unit_codes(vq).detach().T).argmax(-1), features


def decode(vq: JanusVQVAE, tokens: Tensor, features: Tensor) -> Tensor:
    """Pixels `[B, 3, S, S]` of `tokens`; the gradient passes the quantiser to `features`."""
    codes = unit_codes(vq)[tokens]
    straight = features + (codes - features).detach()
    side = math.isqrt(tokens.shape[1])
    codes = vq.post_quant_conv(straight.transpose(1, 2).unflatten(2, (side, side)))
    pixels: Tensor = vq.decoder(codes)
    return pixels


def unit_codes(vq: JanusVQVAE) -> Tensor:
    """The codebook on the sphere, `[K, code]`."""
    return F.normalize(vq.quantize.embedding.weight, dim=-1)


def losses(
    vq: JanusVQVAE, pixels: Tensor, names: Tensor, temperature: float
) -> tuple[dict[str, Tensor], Tensor]:
    """The parts of the training loss, each a scalar, and the encoder's own tokens.

    `names` int64 `[B, I]` are the tokens to be learnt; the decoder trains on them from the start.
    """
    tokens, features = encode(vq, pixels)
    error = decode(vq, names, features) - pixels
    cosines = features @ unit_codes(vq).T
    naming = F.cross_entropy(cosines.flatten(0, 1) / temperature, names.flatten())
    # The absolute part keeps flat areas flat; squares alone leave them faintly textured.
    parts = {"squared": error.square().mean(), "absolute": error.abs().mean(), "naming": naming}
    return parts, tokens


def train_vq(
    vq: JanusVQVAE, pictures: Tensor, settings: VQSettings, *, seed: int, log: Log
) -> dict[str, float]:
    """Train in place on uint8 `[N, S, S, 3]` pictures; the codebook ends on the unit sphere.

    `log` is called after each step. Returns the last losses and the part of tokens named as
    taught, averaged over about 50 steps.
    """
    patch = pictures.shape[1] // vq.config.num_patches
    centres = cluster_patches(pictures, vq.config.num_embeddings, patch, seed)
    names = nearest_centres(pictures, centres, patch)
    if settings.codes == "patches":
        codebook = vq.quantize.embedding.weight
        codebook.data[: len(centres)] = codes_of(centres, codebook.shape[1])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(vq.parameters(), lr=settings.lr, betas=(0.9, 0.99))
    schedule = up_then_cosine(optimizer, settings.steps)
    smooth: dict[str, float] = {}
    vq.requires_grad_(True)
    for step in range(1, settings.steps + 1):
        rows = torch.randint(len(pictures), (settings.batch,), generator=generator)
        parts, tokens = losses(vq, to_pixels(pictures[rows]), names[rows], settings.temperature)
        optimizer.zero_grad()
        (parts["squared"] + parts["absolute"] + settings.naming * parts["naming"]).backward()
        torch.nn.utils.clip_grad_norm_(vq.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        keep_on_sphere(vq)
        now = {name: part.item() for name, part in parts.items()}
        now["named"] = (tokens == names[rows]).float().mean().item()
        for name, value in now.items():
            smooth[name] = 0.98 * smooth.get(name, value) + 0.02 * value
        log({"step": step, **smooth})
    vq.requires_grad_(False)
    return smooth


@torch.no_grad()
def keep_on_sphere(vq: JanusVQVAE) -> None:
    """Decoding normalises codes and quantising in transformers does not: unit codes serve both."""
    vq.quantize.embedding.weight.copy_(unit_codes(vq))


def to_pixels(pictures: Tensor) -> Tensor:
    """uint8 `[B, S, S, 3]` -> float32 `[B, 3, S, S]` in [-1, 1], as the image processor does it."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def to_pictures(pixels: Tensor) -> Tensor:
    """The inverse of `to_pixels`, clipped and rounded."""
    scaled = (pixels.permute(0, 2, 3, 1) + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8)
