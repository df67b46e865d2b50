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


def compare(base: Evaluation, tuned: Evaluation) -> list[Row]:
    """Rows "all" and each category of both directions; "shapes right", "colours bound" beside.

    Of one and the same model, asked the same way, the difference is 0 and its interval [0, 0].

    Raises:
        ValueError: the two were not judged on the same inputs.
    """
    rows = []
    same = is_same_model(base, tuned)
    for direction in DIRECTIONS:
        before, after = same_items(base, tuned, direction)
        everything = np.ones(len(before.clusters), bool)
        rows.append(_row(direction, "all", before, after, everything, "correct", same))
        for name in in_order(before.categories):
            chosen = np.array([category == name for category in before.categories])
            rows.append(_row(direction, name, before, after, chosen, "correct", same))
            for part in before.judged:
                if part != "correct" and name == "two_objects":
                    label = f"{name}: {_PARTS.get(part, part)}"
                    rows.append(_row(direction, label, before, after, chosen, part, same))
    return rows


def same_items(base: Evaluation, tuned: Evaluation, direction: str) -> tuple[Items, Items]:
    """A direction's items of both; ValueError if they were not judged on the same inputs."""
    before: Items = getattr(base, direction)
    after: Items = getattr(tuned, direction)
    if before.clusters != after.clusters or before.inputs != after.inputs:
        raise ValueError(
            f"{direction}: the evaluations are of different inputs ({_told(base)} and "
            f"{_told(tuned)}); evaluate both with one split, n and seed"
        )
    return before, after


def is_same_model(base: Evaluation, tuned: Evaluation) -> bool:
    """Whether both are of the same weights, asked the same way: then nothing can differ.

    What a run gives back untouched is saved with other files beside the weights, which do not
    count. Evaluations that do not say of which weights they are, are of two models.
    """
    one, other = ({**of.settings, "files": None} for of in (base, tuned))
    return "weights" in one and one == other


def difference_of(base: Any, tuned: Any, clusters: Any, same: bool) -> Interval:
    """The paired interval; exactly 0 where both are `same`, the same model asked the same way."""
    found = paired_interval(base, tuned, clusters)
    return found._replace(estimate=0.0, low=0.0, high=0.0) if same else found


def _told(evaluation: Evaluation) -> str:
    items = [len(getattr(evaluation, direction).inputs) for direction in DIRECTIONS]
    settings = evaluation.settings
    return f"{settings['task']}, {items[0]} prompts, {items[1]} pictures, seed {settings['seed']}"


def in_order(categories: Sequence[str]) -> list[str]:
    """The categories that occur, the checker's in its own order, then others as they come."""
    found = list(dict.fromkeys(categories))
    known: list[str] = [name for name in CATEGORIES if name in found]
    return known + [name for name in found if name not in known]


def headline(rows: Sequence[Row], direction: str) -> Row:
    """The row over all categories of a direction."""
    return next(row for row in rows if row["direction"] == direction and row["category"] == "all")


def accuracies(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One model alone: accuracy and interval per direction and category."""
    lines: list[dict[str, Any]] = []
    for direction in DIRECTIONS:
        items: Items = getattr(evaluation, direction)
        for name in ("all", *in_order(items.categories)):
            chosen = np.array([name in ("all", category) for category in items.categories])
            clusters = np.array(items.clusters)[chosen]
            interval = mean_interval(items.correct[chosen], clusters)
            lines.append({"direction": direction, "category": name, **_flat(interval)})
    return lines


def _row(
    direction: str,
    label: str,
    before: Items,
    after: Items,
    chosen: np.ndarray,
    part: str,
    same: bool,
) -> Row:
    clusters = np.array(before.clusters)[chosen]
    base, tuned = before.judged[part][chosen], after.judged[part][chosen]
    of_base = mean_interval(base, clusters)
    of_tuned = mean_interval(tuned, clusters)
    difference = difference_of(base, tuned, clusters, same)
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
