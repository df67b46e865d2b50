"""Reads a drawn picture back into its scene: nearest template in each cell, or "unreadable".

Every cell of the 2 x 2 grid is compared, in squared error over its pixels, with every colour and
shape at every position and size that the drawing's jitter gives, and with an empty cell. A cell
that is neither nearly empty nor well explained by one template makes the picture unreadable; so do
no thing at all, or more than two.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from suder.world.drawing import draw
from suder.world.scenes import COLORS, SHAPES, SIZE, Scene, Thing

CELL = SIZE // 2
JITTERS = 96  # drawings per colour and shape that the templates are taken from
# Both limits are parts of a thing's energy (the squared distance of its pixels to the background).
# Reconstructions of the embedded VQ model leave under 0.2 unexplained and under 0.1 in an empty
# cell; a thing in two colours, or of half its area, leaves over 0.4.
UNEXPLAINED = 0.30
EMPTY = 0.20
_BATCH = 256


class Templates(NamedTuple):
    """Cells as `draw` makes them, less the background; row m shows a thing of `kind[m]`."""

    kind: list[tuple[str, str]]
    pixels: np.ndarray  # float32 [M, CELL * CELL * 3]
    energy: np.ndarray  # float32 [M]
    background: np.ndarray  # float32 [3]


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
    offset = cells.reshape(-1, CELL * CELL, 3).astype(np.float32) - known.background
    offset = offset.reshape(len(offset), -1)
    mass = np.einsum("nd,nd->n", offset, offset)
    error = mass[:, None] - 2 * offset @ known.pixels.T + known.energy
    nearest = error.argmin(1)
    unexplained = error[np.arange(len(error)), nearest] / known.energy[nearest]
    empty = mass < EMPTY * known.energy.min()
    garbage = ~empty & (unexplained > UNEXPLAINED)
    rows = (nearest.reshape(-1, 4), empty.reshape(-1, 4), garbage.reshape(-1, 4))
    return [_scene(*row) for row in zip(*rows, strict=True)]


def _scene(nearest: np.ndarray, empty: np.ndarray, garbage: np.ndarray) -> Scene | None:
    if garbage.any() or not 1 <= int((~empty).sum()) <= 2:
        return None
    kind = templates().kind
    return Scene(tuple(Thing(*kind[nearest[cell]], cell) for cell in np.flatnonzero(~empty)))


@functools.cache
def templates() -> Templates:
    """The templates, drawn once a process: `JITTERS` drawings per kind, equal ones merged."""
    empty = [draw(Scene((Thing(COLORS[0], SHAPES[0], 0),)), seed) for seed in range(8)]
    background = np.mean([picture[CELL:, CELL:] for picture in empty], (0, 1, 2)).astype(np.float32)
    kinds: list[tuple[str, str]] = []
    rows = []
    for color in COLORS:
        for shape in SHAPES:
            scene = Scene((Thing(color, shape, 0),))
            drawn = np.stack([draw(scene, seed)[:CELL, :CELL] for seed in range(JITTERS)])
            distinct = np.unique(drawn.reshape(JITTERS, -1, 3), axis=0)
            kinds += [(color, shape)] * len(distinct)
            rows.append((distinct - background).reshape(len(distinct), -1))
    pixels = np.concatenate(rows).astype(np.float32)
    return Templates(kinds, pixels, np.einsum("md,md->m", pixels, pixels), background)
