"""A suite's numbers of one model, or of two side by side, each with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from suder.evaluation.answering.answer import Answer
from suder.evaluation.answering.match import is_right
from suder.evaluation.answering.question import Question
from suder.evaluation.paired import Fraction, paired_bootstrap, paired_ratio_interval
from suder.evaluation.statistics import ratio_interval

ALL = "all"


class Measure(NamedTuple):
    """One of a suite's numbers: a fraction over units, which are questions or groups of them."""

    name: str
    part: str
    top: np.ndarray
    bottom: np.ndarray
    clusters: list[str]


Measures = Callable[[Sequence[Question], np.ndarray, Sequence[str]], list[Measure]]


def share(
    name: str,
    part: str,
    questions: Sequence[Question],
    right: np.ndarray,
    unit: Callable[[Question], str] = lambda one: one.key,
) -> Measure:
    """How many units are right, which are so if all of their questions are."""
    whole: dict[str, bool] = {}
    clusters: dict[str, str] = {}
    for one, is_so in zip(questions, right, strict=True):
        key = unit(one)
        whole[key] = whole.get(key, True) and bool(is_so)
        clusters.setdefault(key, one.cluster or one.key)
    top = np.array(list(whole.values()), float)
    return Measure(name, part, top, np.ones(len(top)), [clusters[key] for key in whole])


def by_part(
    name: str,
    questions: Sequence[Question],
    right: np.ndarray,
    columns: Iterable[str],
    unit: Callable[[Question], str] = lambda one: one.key,
) -> list[Measure]:
    """The share of all, and of those of each entry that a question's `parts` have, sorted."""
    found = [share(name, ALL, questions, right, unit)]
    for column in columns:
        for part in sorted({one.parts[column] for one in questions if column in one.parts}):
            some = np.array([one.parts.get(column) == part for one in questions])
            of = [one for one, is_so in zip(questions, some, strict=True) if is_so]
            found.append(share(name, part, of, right[some], unit))
    return found


def scored(questions: Sequence[Question], *sides: Mapping[str, Answer]) -> list[Question]:
    """Those whose right answer is known and that every side answered."""
    return [
        one for one in questions
        if one.answers and all("said" in side.get(one.key, {}) for side in sides)
    ]  # fmt: skip


def is_answered_right(question: Question, answer: Answer) -> bool:
    said = str(answer["said"])
    return said in question.answers if question.options else is_right(said, question.answers)


def score(
    measures: Measures,
    questions: Sequence[Question],
    tuned: Mapping[str, Answer],
    base: Mapping[str, Answer] | None = None,
    same: bool = False,
) -> list[dict[str, Any]]:
    """A row for each number: of one model, or of base and tuned with their paired difference.

    Of what a side did not answer nothing is said of either. `interval` is that of
    `paired_ratio_interval`, `bootstrap` that of `paired_bootstrap`; 0 where both are the `same`.
    """
    sides = [tuned] if base is None else [base, tuned]
    some = scored(questions, *sides)
    if not some:
        return []
    told = [_measures(measures, some, side) for side in sides]
    rows = []
    for of_each in zip(*told, strict=True):
        last = of_each[-1]
        row: dict[str, Any] = {"measure": last.name, "part": last.part, "n": len(last.top),
                               "clusters": len(set(last.clusters))}  # fmt: skip
        for name, one in zip(("base", "tuned")[-len(sides) :], of_each, strict=True):
            found = ratio_interval(one.top, one.bottom, one.clusters)
            row |= {name: found.estimate, f"{name}_interval": [found.low, found.high]}
        if base is not None:
            before, after = (Fraction(one.top, one.bottom) for one in of_each)
            found = paired_ratio_interval(before, after, last.clusters)
            ends = paired_bootstrap(before, after, last.clusters)
            if same:
                found, ends = found._replace(estimate=0.0, low=0.0, high=0.0), (0.0, 0.0)
            row |= {"difference": found.estimate, "interval": [found.low, found.high],
                    "bootstrap": list(ends)}  # fmt: skip
        rows.append(row)
    return rows


def _measures(
    measures: Measures, questions: Sequence[Question], side: Mapping[str, Answer]
) -> list[Measure]:
    answers = [side[one.key] for one in questions]
    pairs = zip(questions, answers, strict=True)
    right = np.array([is_answered_right(one, answer) for one, answer in pairs])
    return measures(questions, right, [str(answer["said"]) for answer in answers])


def lines(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of a table for people, after its head."""
    two = bool(rows) and "base" in rows[0]
    sides = ("base", "tuned") if two else ("tuned",)
    head = ("", "part", "n", *(sides if two else ("right", "95% interval")))
    found = [(*head, "points", "95% interval") if two else head]
    for row in rows:
        cells = [str(row["measure"]), str(row["part"]).replace("_", " "), str(row["n"])]
        cells += [_percent(row[side]) for side in sides]
        if two:
            cells += [_percent(row["difference"], "+"), _ends(row["interval"], "+")]
        else:
            cells.append(_ends(row["tuned_interval"]))
        found.append(tuple(cells))
    return found


def _percent(value: float | None, sign: str = "") -> str:
    """As points where it is a difference."""
    if value is None or not np.isfinite(value):
        return "none"
    return f"{100 * value:{sign}.1f}{'' if sign else '%'}"


def _ends(ends: Sequence[float | None], sign: str = "") -> str:
    low, high = (_percent(end, sign) for end in ends)
    return low if low == high == "none" else f"{low} to {high}"
