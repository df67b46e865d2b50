"""Which candidates of a group are a pair, the better one first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from suder.rollouts.schema import GROUP

Rule = Literal["best-worst", "margin", "top-k"]


def pair_rows(table: Any, rule: Rule, margin: float = 0.0, k: int = 1) -> list[tuple[int, int]]:
    """Rows of a table of candidates, (chosen, rejected), group by group.

    Only valid candidates of different rewards are a pair; of equal candidates one counts.

    Args:
        rule: "best-worst": one a group. "margin": every two whose rewards differ by more than
            `margin`. "top-k": the best and the worst, the second best and the second worst, ...,
            k at most, and none of them twice.
    """
    rewards, tokens, valid = (table[name].to_pylist() for name in ("reward", "tokens", "valid"))
    found = []
    for rows in groups_of(table).values():
        usable = [row for row in rows if rewards[row] is not None and valid[row]]
        distinct = {tuple(tokens[row]): row for row in reversed(usable)}  # the first of equal ones
        ranked = sorted(distinct.values(), key=lambda row: (-rewards[row], row))
        least = margin if rule == "margin" else 0.0
        for one, other in _by_rule(ranked, rule, k):
            if rewards[one] - rewards[other] > least:
                found.append((one, other))
    return found


def groups_of(table: Any) -> dict[tuple[Any, ...], list[int]]:
    """The rows of each input's candidates, in the order of the table."""
    found: dict[tuple[Any, ...], list[int]] = {}
    keys = zip(*(table[name].to_pylist() for name in GROUP), strict=True)
    for row, key in enumerate(keys):
        found.setdefault(key, []).append(row)
    return found


def _by_rule(ranked: Sequence[int], rule: Rule, k: int) -> Iterator[tuple[int, int]]:
    if rule == "margin":
        yield from ((a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :])
        return
    count = min(1 if rule == "best-worst" else k, len(ranked) // 2)
    yield from ((ranked[i], ranked[-1 - i]) for i in range(count))
