"""MMBench (arXiv 2307.06281): a question is right if it is with its options in every rotation.

VLMEvalKit's TSV files have the rotations as rows, numbered a million further each; where a file has
none they are made here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from suder.evaluation.answering.question import (
    BY_LETTER,
    LETTERS,
    Asked,
    Question,
    choices_of,
    each,
    letter_of,
    with_choices,
)
from suder.evaluation.answering.score import Measure, by_part
from suder.evaluation.answering.table import Row, Table
from suder.inputs.files import DataError

TITLE = "MMBench"
READS = "VLMEvalKit's MMBench_DEV_EN.tsv, or lmms-lab/MMBench"
DATASET, TASK = "MMBench_DEV_EN", "mmbench_en_dev"
ROTATED = 1_000_000


def questions(table: Table) -> Asked:
    """Rows of index, question, hint, A to D, answer, category and l2-category."""
    whole = any(len(row.text("index")) > len(str(ROTATED)) - 1 for row in table.rows)
    return each(table, lambda row: _questions(row, whole))


def _questions(row: Row, whole: bool) -> list[Question]:
    index = row.needs("index")
    if not index.isdecimal():
        raise DataError(f"its index is {index}, and takes a whole number")
    group = row.text("g_index") or str(int(index) % ROTATED)
    choices = choices_of(row)
    if len(choices) < 2:
        raise DataError(f"{len(choices)} options, and takes two or more")
    right = letter_of(row.text("answer"), choices)
    parts = {name: value for name, *columns in (("l2-category", "l2-category", "L2-category"),
             ("category", "category")) if (value := row.text(*columns))}  # fmt: skip
    found = []
    for turn in range(1 if whole else len(choices)):
        turned = choices[turn:] + choices[:turn]
        answers = tuple(LETTERS[(LETTERS.index(one) - turn) % len(choices)] for one in right)
        key = index if not turn else str(int(index) + turn * ROTATED)
        text = with_choices(row.needs("question"), turned, row.text("hint"))
        found.append(
            Question(
                key, row, text, BY_LETTER, LETTERS[: len(choices)], turned, answers,
                cluster=row.picture, parts={**parts, "group": group}, made=turn > 0,
            )
        )  # fmt: skip
    return found


def measures(
    questions: Sequence[Question], right: np.ndarray, said: Sequence[str]
) -> list[Measure]:
    """Circular accuracy of all and of each category; beside it that of the first order alone."""

    def group(one: Question) -> str:
        return one.parts["group"]

    first = np.array([one.key == group(one) for one in questions])
    alone = [one for one, is_so in zip(questions, first, strict=True) if is_so]
    found = by_part("circular", questions, right, ("l2-category", "category"), group)
    return found + by_part("first order", alone, right[first], ()) if alone else found
