"""Trains the VQ model: pictures to tokens and back.

transformers' `JanusVQVAE.forward` decodes from integer tokens, so no reconstruction gradient
reaches the encoder through it. The step here is the straight-through estimator of van den Oord et
al. (arXiv 1711.00937, section 3.2) on the unit sphere: features and codes are both l2-normalised
(arXiv 2110.04627, section 3.2), as Janus's own quantiser has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from transformers.models.janus.modeling_janus import JanusVQVAE

from suder.config import Fraction, Positive, Section
from suder.pretrain.schedule import up_then_cosine

Log = Callable[[dict[str, float]], None]


class VQSettings(Section):
    """Of the VQ stage."""

    pictures: Positive = Field(8192, description="made once, then drawn from")
    steps: Positive = Field(1500, description="optimiser steps")
    batch: Positive = Field(32, description="pictures a step")
    lr: Annotated[float, Field(gt=0.0)] = Field(3e-3, description="highest rate of the cycle")
    commitment: Annotated[float, Field(ge=0.0)] = Field(0.25, description="pull towards the codes")
    decay: Fraction = Field(0.95, description="of the moving averages that the codes are")
    patience: Positive = Field(25, description="steps after which an unused code is moved")
    mixed: Fraction = Field(
        0.5,
        description="part of each batch that exchanges quarters between encoder and decoder, so "
        "that a token says what its own place looks like and nothing of the rest",
    )
    revive_until: Fraction = Field(0.6, description="part of the steps in which codes are moved")


class Reconstruction(NamedTuple):
    """Pixels and their target `[B, 3, S, S]`, tokens `[B, I]`, unit features `[B, I, code]`."""

    pixels: Tensor
    target: Tensor
    tokens: Tensor
    features: Tensor


def encode(vq: JanusVQVAE, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest codes of pixels `[B, 3, S, S]` in [-1, 1]: tokens int64 `[B, I]`, and the features.

    Features are float32 `[B, I, code]` of unit length and carry gradient.
    """
    features = F.normalize(vq.quant_conv(vq.encoder(pixels)).flatten(2).transpose(1, 2), dim=-1)
    codes = F.normalize(vq.quantize.embedding.weight, dim=-1)
    return (features.detach() @ codes.detach().T).argmax(-1), features


def reconstruct(vq: JanusVQVAE, pixels: Tensor, order: Tensor | None = None) -> Reconstruction:
    """Encode, quantise, decode; the decoder's gradient passes the quantiser to the encoder.

    `order` (see `exchange`) rearranges the quarters of the codes, and of the target, over the batch
    before decoding.
    """
    tokens, features = encode(vq, pixels)
    codes = F.normalize(vq.quantize.embedding(tokens), dim=-1)
    straight = features + (codes - features).detach()
    side = vq.quantize.quant_state_dims[0]
    grid = straight.transpose(1, 2).unflatten(2, (side, side))
    if order is not None:
        grid, pixels = exchange(grid, order), exchange(pixels, order)
    return Reconstruction(vq.decoder(vq.post_quant_conv(grid)), pixels, tokens, features)


def exchange(grid: Tensor, order: Tensor) -> Tensor:
    """Quarter q of row b becomes that of row `order[q, b]`; grid `[B, C, S, S]`, S even."""
    half = grid.shape[-1] // 2
    parts = grid.unflatten(3, (2, half)).unflatten(2, (2, half))
    quarters = [parts[order[2 * y + x], :, y, :, x] for y in range(2) for x in range(2)]
    rows = [torch.cat(quarters[2 * y : 2 * y + 2], dim=-1) for y in range(2)]
    return torch.cat(rows, dim=-2)


def draw_order(batch: int, mixed: float, generator: torch.Generator) -> Tensor:
    """int64 `[4, batch]`: each quarter shuffled over the first `mixed` part of the batch."""
    order = torch.arange(batch).repeat(4, 1)
    n = int(batch * mixed)
    for quarter in order:
        quarter[:n] = torch.randperm(n, generator=generator)
    return order


def losses(
    vq: JanusVQVAE, pixels: Tensor, commitment: float, order: Tensor | None = None
) -> tuple[Tensor, Reconstruction]:
    """The training loss (a scalar) and what it was computed from. The codebook gets no gradient."""
    made = reconstruct(vq, pixels, order)
    error = made.pixels - made.target
    codes = F.normalize(vq.quantize.embedding(made.tokens), dim=-1)
    to_codes = (made.features - codes.detach()).square().sum(-1).mean()
    # The absolute part keeps flat areas flat; squares alone leave them faintly textured.
    return error.square().mean() + error.abs().mean() + commitment * to_codes, made


class Codebook:
    """Moves each code to the mean direction of the features that chose it, lately.

    The moving averages of van den Oord et al. (arXiv 1711.00937, appendix A.1), on the sphere. A
    code that nothing chose for `patience` steps is moved onto a feature of the current batch.
    """

    def __init__(self, vq: JanusVQVAE, decay: float, patience: int, seed: int) -> None:
        self.weight = vq.quantize.embedding.weight
        self.decay = decay
        self.patience = patience
        self.sums = self.weight.detach().clone()
        self.idle = torch.zeros(len(self.weight))
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def update(self, made: Reconstruction, revive: bool) -> None:
        """After a step on `made`; the codes stay on the unit sphere."""
        features, tokens = made.features.detach().flatten(0, 1), made.tokens.flatten()
        fresh = torch.zeros_like(self.sums).index_add_(0, tokens, features)
        chosen = torch.bincount(tokens, minlength=len(fresh)) > 0
        self.sums[chosen] = self.decay * self.sums[chosen] + (1 - self.decay) * fresh[chosen]
        self.idle = torch.where(chosen, 0, self.idle + 1)
        if revive:
            self._revive(features)
        self.weight.copy_(F.normalize(self.sums, dim=-1))

    def _revive(self, features: Tensor) -> None:
        """Features are drawn by their squared distance to the nearest code (as k-means++ does).

        Drawn evenly, most dead codes would come to stand for blank background.
        """
        dead = (self.idle >= self.patience).nonzero().squeeze(1)
        if not len(dead):
            return
        distance = (2 - 2 * (features @ self.weight.T).amax(-1)).clamp(min=1e-6)
        rows = torch.multinomial(distance, len(dead), replacement=True, generator=self.generator)
        self.sums[dead] = features[rows]
        self.idle[dead] = 0

    @property
    def in_use(self) -> int:
        """Codes that something chose within the last `patience` steps."""
        return int((self.idle < self.patience).sum())


def train_vq(
    vq: JanusVQVAE, pictures: Tensor, settings: VQSettings, *, seed: int, log: Log
) -> dict[str, float]:
    """Train in place on uint8 `[N, S, S, 3]` pictures; the codebook ends on the unit sphere.

    `log` is called after each step. Returns the last losses, averaged.
    """
    generator = torch.Generator().manual_seed(seed)
    codebook = Codebook(vq, settings.decay, settings.patience, seed)
    trained = [p for p in vq.parameters() if p is not codebook.weight]
    optimizer = torch.optim.AdamW(trained, lr=settings.lr, betas=(0.9, 0.99))
    schedule = up_then_cosine(optimizer, settings.steps)
    smooth: dict[str, float] = {}
    vq.requires_grad_(True)
    for step in range(1, settings.steps + 1):
        rows = torch.randint(len(pictures), (settings.batch,), generator=generator)
        pixels = to_pixels(pictures[rows])
        order = draw_order(settings.batch, settings.mixed, generator)
        loss, made = losses(vq, pixels, settings.commitment, order)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        codebook.update(made, revive=step <= settings.revive_until * settings.steps)
        error = (made.pixels.detach() - made.target).square().mean().item()
        for name, value in {"loss": loss.item(), "squared_error": error}.items():
            smooth[name] = 0.98 * smooth.get(name, value) + 0.02 * value
        log({"step": step, **smooth, "codes": codebook.in_use})
    vq.requires_grad_(False)
    return smooth


def to_pixels(pictures: Tensor) -> Tensor:
    """uint8 `[B, S, S, 3]` -> float32 `[B, 3, S, S]` in [-1, 1], as the image processor does it."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def to_pictures(pixels: Tensor) -> Tensor:
    """The inverse of `to_pixels`, clipped and rounded."""
    scaled = (pixels.permute(0, 2, 3, 1) + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8)
