"""Reads a drawn picture back into its scene: nearest template in each cell, or "unreadable".

Every cell of the 2 x 2 grid is compared, in squared error over its pixels, with every colour and
shape at every position and size that the drawing's jitter gives, sharp and slightly blurred (as a
VQ decoder draws), and with an empty cell. A cell that is neither nearly empty nor well explained by
one template in one clean colour makes the picture unreadable; so do no thing or more than two.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from suder.world.drawing import BACKGROUND, RGB, draw
from suder.world.things import COLORS, KINDS, SIZE, Kind, Scene, Thing

CELL = SIZE // 2
JITTERS = 256  # drawings of a kind that templates are taken from: all jitter, many times over
# The first two limits are parts of a thing's energy, the squared distance of its pixels to the
# background. tests/trainer/test_checker.py holds each limit against what it must let through
# (blur, noise, VQ reconstructions) and what it must not (half things, two colours, faded things).
UNEXPLAINED = 0.16
EMPTY = 0.20
CORE_SHARE = 0.75  # of the thing's inner pixels nearer to its colour than to any other
CORE_DISTANCE = 0.2  # of their mean to the template's, as a part of its distance to the background
_BLUR = (0.06, 0.24, 0.40, 0.24, 0.06)  # about a Gaussian of one pixel
_BATCH = 256


class Templates(NamedTuple):
    """Cells as `draw` makes them, less the background; row m shows a thing of `kind[m]`."""

    kind: list[Kind]
    color: np.ndarray  # int64 [M], into COLORS
    pixels: np.ndarray  # float32 [M, CELL * CELL * 3]
    energy: np.ndarray  # float32 [M]
    core: np.ndarray  # float32 [M, CELL * CELL], 1 where the shape covers the pixel whole
    core_mean: np.ndarray  # float32 [M, 3], the colour there, less the background


def read_picture(picture: Any) -> Scene | None:
    """The scene of one uint8 `[32, 32, 3]` picture, things in the order of their cells, or None."""
    return read_pictures(np.asarray(picture)[None])[0]


def read_pictures(pictures: Any) -> list[Scene | None]:
    """The scenes of uint8 `[B, 32, 32, 3]` pictures; None for each that is not readable."""
    pictures = np.asarray(pictures)
    if pictures.shape[1:] != (SIZE, SIZE, 3) or pictures.dtype != np.uint8:
        raise ValueError(
            f"pictures must be uint8 [B, {SIZE}, {SIZE}, 3], got {pictures.dtype} {pictures.shape}"
        )
    scenes: list[Scene | None] = []
    for start in range(0, len(pictures), _BATCH):
        scenes.extend(_read_batch(pictures[start : start + _BATCH]))
    return scenes


def _read_batch(pictures: np.ndarray) -> list[Scene | None]:
    known = templates()
    cells = pictures.reshape(-1, 2, CELL, 2, CELL, 3).transpose(0, 1, 3, 2, 4, 5)
    offset = cells.reshape(-1, CELL * CELL * 3) - np.float32(BACKGROUND)
    mass = np.einsum("nd,nd->n", offset, offset)
    error = mass[:, None] - 2 * offset @ known.pixels.T + known.energy
    nearest = error.argmin(1)
    unexplained = error[np.arange(len(error)), nearest] / known.energy[nearest]
    empty = mass < EMPTY * known.energy.min()
    clean = _in_one_color(cells.reshape(-1, CELL * CELL, 3).astype(np.float32), nearest)
    garbage = ~empty & ((unexplained > UNEXPLAINED) | ~clean)
    rows = (nearest.reshape(-1, 4), empty.reshape(-1, 4), garbage.reshape(-1, 4))
    return [_scene(*row) for row in zip(*rows, strict=True)]


def _in_one_color(pixels: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Whether the inner pixels of each cell's thing have the colour of its template.

    The squared error alone would pass a thing half blue and half purple as purple.
    """
    known = templates()
    palette = np.array([RGB[color] for color in COLORS], np.float32)
    core = known.core[nearest]
    count = core.sum(1)
    squares = (palette**2).sum(1) - 2 * pixels @ palette.T  # less the pixel's own square
    alike = squares.argmin(2) == known.color[nearest][:, None]
    mean = np.einsum("np,npc->nc", core, pixels - np.float32(BACKGROUND)) / count[:, None]
    expected = known.core_mean[nearest]
    distance = np.linalg.norm(mean - expected, axis=1) / np.linalg.norm(expected, axis=1)
    known_ones: np.ndarray = (alike * core).sum(1) >= CORE_SHARE * count
    known_ones &= distance <= CORE_DISTANCE
    return known_ones


def _scene(nearest: np.ndarray, empty: np.ndarray, garbage: np.ndarray) -> Scene | None:
    if garbage.any() or not 1 <= int((~empty).sum()) <= 2:
        return None
    kind = [templates().kind[int(row)] for row in nearest]
    full = [int(cell) for cell in np.flatnonzero(~empty)]
    return Scene(tuple(Thing(kind[cell].color, kind[cell].shape, cell) for cell in full))


@functools.cache
def templates() -> Templates:
    """The templates, drawn once a process: `JITTERS` drawings per kind, equal ones merged."""
    kinds: list[Kind] = []
    rows, cores = [], []
    for kind in KINDS:
        scene = Scene((Thing(*kind, 0),))
        drawn = np.stack([draw(scene, seed)[:CELL, :CELL] for seed in range(JITTERS)])
        sharp = np.unique(drawn, axis=0)
        core = (sharp == RGB[kind.color]).all(3).reshape(len(sharp), -1)
        offset = sharp - np.float32(BACKGROUND)
        rows += [offset, _blurred(offset)]
        cores += [core, core]
        kinds += [kind] * (2 * len(sharp))
    pixels = np.concatenate(rows).reshape(len(kinds), -1, 3)
    core = np.concatenate(cores).astype(np.float32)
    mean = np.einsum("mp,mpc->mc", core, pixels) / core.sum(1)[:, None]
    color = np.array([COLORS.index(kind.color) for kind in kinds])
    flat = pixels.reshape(len(kinds), -1)
    return Templates(kinds, color, flat, np.einsum("md,md->m", flat, flat), core, mean)


def _blurred(offset: np.ndarray) -> np.ndarray:
    """`[M, H, W, 3]` less the background, smoothed over both axes; the outside is background."""
    for axis in (1, 2):
        pad = [(2, 2) if place == axis else (0, 0) for place in range(4)]
        padded = np.pad(offset, pad)
        taken = [np.take(padded, range(i, i + CELL), axis) for i in range(len(_BLUR))]
        offset = np.einsum("w,w...->...", np.array(_BLUR, np.float32), np.stack(taken))
    return offset
