"""Clusters of picture patches: what the VQ model's tokens are taught to stand for."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 25  # of Lloyd's algorithm; it has settled long before on the worlds here
PATCHES = 20_000  # at most that many different ones are clustered


def cluster_patches(pictures: Tensor, count: int, patch: int, seed: int) -> Tensor:
    """At most `count` centres, float32 `[K, patch * patch * 3]`, of uint8 `[N, S, S, 3]` pictures.

    Equal patches count once: blank background would otherwise be most of the data. k-means
    from farthest-first seeds (Gonzalez 1985), which give every clearly different patch a centre of
    its own before any is split; fewer different patches, fewer centres.
    """
    generator = torch.Generator().manual_seed(seed)
    points: Tensor = cut(pictures, patch).flatten(0, 1).unique(dim=0)
    if len(points) > PATCHES:
        points = points[torch.randperm(len(points), generator=generator)[:PATCHES]]
    points = points.float()
    centres: Tensor = points[torch.randint(len(points), (1,), generator=generator)]
    distance = torch.full((len(points),), torch.inf)
    while len(centres) < min(count, len(points)):
        distance = torch.minimum(distance, (points - centres[-1]).square().sum(-1))
        centres = torch.cat([centres, points[distance.argmax()][None]])
    for _ in range(ROUNDS):
        nearest = torch.cdist(points, centres).argmin(-1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres


def nearest_centres(pictures: Tensor, centres: Tensor, patch: int) -> Tensor:
    """int64 `[N, I]`: the cluster of each patch, row by row."""
    parts = [
        torch.cdist(cut(some, patch).flatten(0, 1).float(), centres).argmin(-1)
        for some in pictures.split(256)
    ]
    return torch.cat(parts).view(len(pictures), -1)


def codes_of(centres: Tensor, width: int) -> Tensor:
    """Unit codes, float32 `[K, width]`, the nearer the more alike the centres `[K, D]` are.

    The first `width - 1` principal components, each divided by the root of its deviation so that
    the many small ones are not lost beside the first, and a constant, all scaled to unit length:
    without the constant, pale and dark patches of one pattern would have one code.
    """
    offset = centres - centres.mean(0)
    _, _, axes = torch.linalg.svd(offset, full_matrices=False)
    parts = offset @ axes[: width - 1].T
    parts = parts / parts.std(0).clamp(min=1e-6).sqrt()
    parts = parts / parts.square().sum(-1).mean().sqrt().clamp(min=1e-6)
    codes = torch.zeros(len(centres), width)
    codes[:, : parts.shape[1]] = parts
    codes[:, -1] = 1.0
    return torch.nn.functional.normalize(codes, dim=-1)


def cut(pictures: Tensor, patch: int) -> Tensor:
    """`[N, S, S, 3]` -> `[N, I, patch * patch * 3]`."""
    n, side = pictures.shape[:2]
    grid = side // patch
    parts = pictures.view(n, grid, patch, grid, patch, 3).transpose(2, 3)
    return parts.reshape(n, grid * grid, -1)
