"""What a suite's scorer finds in its folder: which pictures of which prompt, by which names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from suder.inputs.files import DataError

MANIFEST = "manifest.json"
LONGEST_NAME = 255 - len(".partial")  # bytes of a name on every common file system


class Item(NamedTuple):
    """One prompt of a suite.

    Attributes:
        prompt: what is drawn.
        pictures: where its n pictures go, from the suite's folder on; or one name, if all n stand
            in one picture as a grid, row by row.
        texts: files that the scorer reads beside them, as (where, what is in it).
    """

    prompt: str
    pictures: tuple[str, ...]
    texts: tuple[tuple[str, str], ...] = ()


def check_n(suite: str, n: int, most: int | None = None) -> None:
    """Raises ValueError for a number of pictures that the suite's scorer does not read."""
    if n < 1 or (most and n > most):
        takes = "an integer from 1" if not most else "1" if most == 1 else f"1 to {most}"
        raise ValueError(f"--n: {suite} takes {takes} pictures of a prompt, got {n}")


def check_names(items: Sequence[Item], source: str) -> list[Item]:
    """The items, if there are some and each picture has a name of its own that can be written."""
    if not items:
        raise DataError(f"{source}: no prompts in it")
    seen: set[str] = set()
    for item in items:
        for name in item.pictures:
            if name in seen:
                raise DataError(f"{source}: two prompts would both be drawn to {name}")
            if len(name.rpartition("/")[2].encode()) > LONGEST_NAME:
                raise DataError(
                    f"{source}: {name[:60]}... is too long for a file's name, which holds the "
                    f"prompt: at most {LONGEST_NAME} bytes; shorten the prompt or leave it out"
                )
            seen.add(name)
    return list(items)
