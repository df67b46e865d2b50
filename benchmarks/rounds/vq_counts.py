"""Convolutions of Janus's VQ model, both ways, from its config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from .work import Work

FLOAT32 = 4


class Layer(NamedTuple):
    """A convolution, or attention where the kernel is 0, that gives `side` x `side` positions."""

    before: int
    after: int
    kernel: int
    side: int
    shrink: int = 1  # the input's side is this times as large


def decoded(vq: Any, pictures: float) -> Work:
    """Of `pictures` grids of tokens to pixels."""
    return _work(list(_decoder(vq)), pictures)


def encoded(vq: Any, pictures: float) -> Work:
    """Of `pictures` to their nearest codes."""
    work = _work(list(_encoder(vq)), pictures)
    nearest = 2.0 * vq.num_embeddings * vq.embed_dim * vq.num_patches**2 * pictures
    return Work(work.moved, work.operations + nearest, work.dtype)


def _decoder(vq: Any) -> Iterator[Layer]:
    widths, side = _widths(vq), vq.num_patches
    yield Layer(vq.embed_dim, vq.latent_channels, 1, side)
    yield Layer(vq.latent_channels, widths[-1], 3, side)
    yield from _middle(widths[-1], side)
    before = widths[-1]
    for level in reversed(range(len(widths))):
        for _ in range(vq.num_res_blocks + 1):
            yield from _block(before, widths[level], side)
            before = widths[level]
            if level == len(widths) - 1:
                yield from _attention(before, side)
        if level:
            side *= 2
            yield Layer(before, before, 3, side)
    yield Layer(before, vq.out_channels, 3, side)


def _encoder(vq: Any) -> Iterator[Layer]:
    widths = _widths(vq)
    side = vq.num_patches * 2 ** (len(widths) - 1)
    yield Layer(vq.in_channels, vq.base_channels, 3, side)
    before = vq.base_channels
    for level, width in enumerate(widths):
        for _ in range(vq.num_res_blocks):
            yield from _block(before, width, side)
            before = width
            if level == len(widths) - 1:
                yield from _attention(before, side)
        if level < len(widths) - 1:
            side //= 2
            yield Layer(before, before, 3, side, 2)
    yield from _middle(before, side)
    latent = vq.latent_channels * (2 if vq.double_latent else 1)
    yield Layer(before, latent, 3, side)
    yield Layer(latent, vq.embed_dim, 1, side)


def _widths(vq: Any) -> list[int]:
    return [vq.base_channels * times for times in vq.channel_multiplier]


def _block(before: int, after: int, side: int) -> Iterator[Layer]:
    yield Layer(before, after, 3, side)
    yield Layer(after, after, 3, side)
    if before != after:
        yield Layer(before, after, 1, side)


def _attention(width: int, side: int) -> Iterator[Layer]:
    for _ in range(4):
        yield Layer(width, width, 1, side)
    yield Layer(width, width, 0, side)


def _middle(width: int, side: int) -> Iterator[Layer]:
    yield from _block(width, width, side)
    yield from _attention(width, side)
    yield from _block(width, width, side)


def _work(layers: list[Layer], pictures: float) -> Work:
    moved = operations = 0.0
    for one in layers:
        positions = one.side**2
        if one.kernel:
            weights = one.kernel**2 * one.before * one.after
            operations += 2.0 * weights * positions * pictures
            read = one.before * (one.side * one.shrink) ** 2
            moved += FLOAT32 * (weights + (read + one.after * positions) * pictures)
        else:
            operations += 4.0 * one.after * positions**2 * pictures
            moved += FLOAT32 * 4.0 * one.after * positions * pictures
    return Work(moved, operations, torch.float32)
