"""The comparison of base and tuned in words: two headline cards, a verdict, tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from suder.evaluation.answering.score import ALL, lines
from suder.evaluation.compare import Row, headline
from suder.report.shapes import Counted

TITLES = {
    "generation": "Pictures of unseen prompts",
    "understanding": "Captions of unseen pictures",
}
_WORDS = {
    "up": "{} improved beyond the noise of this evaluation",
    "down": "{} got worse, beyond the noise of this evaluation",
    "": "{} did not change by more than the noise of this evaluation",
}


def verdict(rows: Sequence[Row]) -> str:
    """One sentence that claims no more than the intervals do."""
    said = [
        _WORDS[_sense(headline(rows, direction))].format(name)
        for direction, name in (("generation", "Drawing"), ("understanding", "captioning"))
    ]
    return "; ".join(said) + "."


def totals(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The row over all categories of each direction, for the cards."""
    return [line(headline(rows, direction)) for direction in TITLES]


def line(row: Row) -> dict[str, Any]:
    """A row's numbers as they are printed."""
    low, high = row["interval"]
    category = row["category"]
    return {
        "direction": row["direction"],
        "kind": "all" if category == "all" else "part" if ":" in category else "",
        "name": category.replace("_", " ").split(": ")[-1],
        "n": row["n"],
        "base": f"{100 * row['base']:.1f}%",
        "base_interval": _interval(row["base_interval"]),
        "tuned": f"{100 * row['tuned']:.1f}%",
        "tuned_interval": _interval(row["tuned_interval"]),
        "difference": f"{100 * row['difference']:+.1f}",
        "interval": f"{100 * low:+.1f} to {100 * high:+.1f}",
        "sense": _sense(row),
    }


def counted(row: Counted) -> dict[str, Any]:
    """A suite's number as it is printed."""
    _, *cells = lines([row.model_dump()])
    measure, part, n, base, tuned, points, interval = cells[0]
    low, high = row.interval
    return {
        "kind": "all" if part == ALL else "",
        "name": measure if part == ALL else f"{measure}: {part}",
        "cells": (n, base, tuned, points, interval),
        "sense": "up" if (low or 0) > 0 else "down" if (high or 0) < 0 else "",
    }


def _sense(row: Row) -> str:
    low, high = row["interval"]
    return "up" if low > 0 else "down" if high < 0 else ""


def _interval(interval: Sequence[float]) -> str:
    low, high = interval
    return f"[{100 * low:.0f}, {100 * high:.0f}]"
