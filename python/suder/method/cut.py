"""How candidates are cut into passes, none of which is larger than the memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

S = TypeVar("S", range, list[int], list[list[int]])


def most(count: int, fits: Callable[[int], bool]) -> int:
    """The most of `count` that fit, by halving: asks few times. 0 where not even one does.

    Whoever fits few fits fewer, but for a pass that changes its layout in between; what is returned
    fits all the same.
    """
    if count and fits(count):
        return count
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def in_parts(things: S, fit: Callable[[S, int], bool]) -> Iterator[S]:
    """Consecutive things, as many at once as fit, one at least.

    Args:
        fit: whether the first so many of these do.
    """
    while things:
        count = max(1, most(len(things), partial(fit, things))) if len(things) > 1 else 1
        yield things[:count]
        things = things[count:]


def cut(
    rows: int, group: int, fit: Callable[[range, range], bool], whole: bool = False
) -> Iterator[tuple[range, range]]:
    """Rows of candidates, and which of each row's `group`: as many at once as fit, in order.

    Args:
        fit: whether these rows and these of their candidates do.
        whole: a row that does not fit is taken all the same, not cut.
    """
    every = range(group)

    def rows_fit(left: range, count: int) -> bool:
        return fit(left[:count], every)

    for some in in_parts(range(rows), rows_fit):
        if whole or len(some) > 1 or rows_fit(some, 1):
            yield some, every
            continue

        def part_fits(left: range, count: int, row: range = some) -> bool:
            return fit(row, left[:count])

        for part in in_parts(every, part_fits):
            yield some, part
