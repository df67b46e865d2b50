"""Two models on the same items: per category base, tuned, the difference and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from suder.evaluation.grammar import CATEGORIES
from suder.evaluation.result import DIRECTIONS, Evaluation, Items
from suder.evaluation.statistics import Interval, mean_interval, paired_interval

_PARTS = {"shapes": "shapes right", "binding": "colours bound"}


class Row(TypedDict):
    """One line of the table. Accuracies are fractions of 1; intervals are 95%, clustered."""

    direction: str
    category: str
    n: int
    clusters: int
    base: float
    base_interval: list[float]
    tuned: float
    tuned_interval: list[float]
    difference: float
    interval: list[float]


def compare(base: Evaluation, tuned: Evaluation, *, seed: int = 0) -> list[Row]:
    """Rows "all" and each category of both directions; "shapes right", "colours bound" beside.

    Raises:
        ValueError: the two were not judged on the same inputs.
    """
    rows = []
    for direction in DIRECTIONS:
        before, after = same_items(base, tuned, direction)
        everything = np.ones(len(before.clusters), bool)
        rows.append(_row(direction, "all", before, after, everything, "correct", seed))
        for name in in_order(before.categories):
            chosen = np.array([category == name for category in before.categories])
            rows.append(_row(direction, name, before, after, chosen, "correct", seed))
            for part in before.judged:
                if part != "correct" and name == "two_objects":
                    label = f"{name}: {_PARTS.get(part, part)}"
                    rows.append(_row(direction, label, before, after, chosen, part, seed))
    return rows


def same_items(base: Evaluation, tuned: Evaluation, direction: str) -> tuple[Items, Items]:
    """A direction's items of both; ValueError if they were not judged on the same inputs."""
    before: Items = getattr(base, direction)
    after: Items = getattr(tuned, direction)
    if before.clusters != after.clusters or before.inputs != after.inputs:
        raise ValueError(
            f"{direction}: the evaluations are of different inputs "
            f"({base.settings} and {tuned.settings}); evaluate both with one split, n and seed"
        )
    return before, after


def in_order(categories: Sequence[str]) -> list[str]:
    """The categories that occur, the checker's in its own order, then others as they come."""
    found = list(dict.fromkeys(categories))
    known: list[str] = [name for name in CATEGORIES if name in found]
    return known + [name for name in found if name not in known]


def headline(rows: Sequence[Row], direction: str) -> Row:
    """The row over all categories of a direction."""
    return next(row for row in rows if row["direction"] == direction and row["category"] == "all")


def accuracies(evaluation: Evaluation, *, seed: int = 0) -> list[dict[str, Any]]:
    """One model alone: accuracy and interval per direction and category."""
    lines: list[dict[str, Any]] = []
    for direction in DIRECTIONS:
        items: Items = getattr(evaluation, direction)
        for name in ("all", *in_order(items.categories)):
            chosen = np.array([name in ("all", category) for category in items.categories])
            clusters = np.array(items.clusters)[chosen]
            interval = mean_interval(items.correct[chosen], clusters, seed=seed)
            lines.append({"direction": direction, "category": name, **_flat(interval)})
    return lines


def _row(
    direction: str,
    label: str,
    before: Items,
    after: Items,
    chosen: np.ndarray,
    part: str,
    seed: int,
) -> Row:
    clusters = np.array(before.clusters)[chosen]
    base, tuned = before.judged[part][chosen], after.judged[part][chosen]
    of_base = mean_interval(base, clusters, seed=seed)
    of_tuned = mean_interval(tuned, clusters, seed=seed)
    difference = paired_interval(base, tuned, clusters, seed=seed)
    return Row(
        direction=direction,
        category=label,
        n=difference.n,
        clusters=difference.clusters,
        base=of_base.estimate,
        base_interval=[of_base.low, of_base.high],
        tuned=of_tuned.estimate,
        tuned_interval=[of_tuned.low, of_tuned.high],
        difference=difference.estimate,
        interval=[difference.low, difference.high],
    )


def _flat(interval: Interval) -> dict[str, Any]:
    return {
        "accuracy": interval.estimate,
        "interval": [interval.low, interval.high],
        "n": interval.n,
        "clusters": interval.clusters,
    }
