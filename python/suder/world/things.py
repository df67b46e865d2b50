"""What the world is made of: colours, shapes, things in cells, scenes of one or two things."""

from __future__ import annotations

from typing import NamedTuple

SIZE = 32
COLORS = ("red", "green", "blue", "yellow", "purple", "black")
SHAPES = ("circle", "square", "triangle", "ring")
CELLS = (0, 1, 2, 3)  # of the 2 x 2 grid, row by row


class Kind(NamedTuple):
    """A colour and a shape."""

    color: str
    shape: str


class Thing(NamedTuple):
    """A kind in a cell (0 to 3, row by row)."""

    color: str
    shape: str
    cell: int

    @property
    def kind(self) -> Kind:
        return Kind(self.color, self.shape)


class Scene(NamedTuple):
    """One or two things, in the order of their cells."""

    things: tuple[Thing, ...]


KINDS = tuple(Kind(color, shape) for color in COLORS for shape in SHAPES)
