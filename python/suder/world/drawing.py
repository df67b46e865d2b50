"""Draws a scene: flat colours on white, soft edges, a little jitter in place."""

from __future__ import annotations

import numpy as np

from suder.world.things import SIZE, Scene, Thing

RGB = {
    "red": (225, 35, 35),
    "green": (30, 185, 70),
    "blue": (40, 95, 230),
    "yellow": (250, 205, 30),
    "purple": (195, 60, 205),
    "black": (20, 20, 20),
}
BACKGROUND = 255.0
CELL = SIZE // 2
_FINE = 4  # samples a pixel and axis for soft edges
_JITTER = (-0.15, 0.15)  # pixels off the cell's centre, each way
_RADIUS = 5.5  # half the side of a shape, in pixels


def draw(scene: Scene, seed: int) -> np.ndarray:
    """uint8 `[32, 32, 3]`. The same scene and seed give the same picture."""
    rng = np.random.default_rng([seed, 13])
    picture = np.full((SIZE, SIZE, 3), BACKGROUND)
    for thing in scene.things:
        row, column = divmod(thing.cell, 2)
        cover = _cover(thing, rng.choice(_JITTER, 2))[..., None]
        cell = picture[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        cell += cover * (np.asarray(RGB[thing.color], float) - cell)
    return picture.round().astype(np.uint8)


def _cover(thing: Thing, offset: np.ndarray) -> np.ndarray:
    """Which part of each pixel of the cell the shape covers, float64 `[16, 16]`."""
    axis = (np.arange(CELL * _FINE) + 0.5) / _FINE - CELL / 2
    y, x = axis[:, None] - offset[0], axis[None, :] - offset[1]
    distance = np.hypot(x, y)
    inside = {
        "circle": distance < _RADIUS * 1.1,
        "ring": (distance < _RADIUS * 1.1) & (distance > _RADIUS * 0.55),
        "square": np.maximum(abs(x), abs(y)) < _RADIUS * 0.95,
        "triangle": (y < _RADIUS) & (2 * abs(x) < (y + _RADIUS) * 1.1),
    }[thing.shape]
    share: np.ndarray = inside.reshape(CELL, _FINE, CELL, _FINE).mean((1, 3))
    return share
