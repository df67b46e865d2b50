"""MMMU (arXiv 2311.16502): college questions, by subject; some of several pictures, some open.

A model that reads one picture is shown several side by side in one, in the file's order.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

import numpy as np

from suder.evaluation.answering.question import (
    BY_LETTER,
    LETTERS,
    OPEN,
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
from suder.storage.shown import named

TITLE = "MMMU"
READS = "VLMEvalKit's MMMU_DEV_VAL.tsv, or the folder of MMMU/MMMU's parquet files"
DATASET, TASK = "MMMU_DEV_VAL", "mmmu_val"
SCORED = "validation"


def questions(table: Table) -> Asked:
    """Test, which has no answers, is left where the file has the validation split; dev, which is
    for examples, is asked, since VLMEvalKit wants all of its file, and not scored.
    """
    splits = {_split(row) for row in table.rows}
    rows = [row for row in table.rows if SCORED not in splits or _split(row) != "test"]
    return each(table._replace(rows=rows), _question)


def _split(row: Row) -> str:
    return row.text("split") or row.text("id").partition("_")[0]


def _question(row: Row) -> list[Question]:
    subject = row.text("category") or "_".join(row.needs("id").split("_")[1:-1])
    choices = _listed(row.text("options")) if "options" in row.values else choices_of(row)
    answer = row.text("answer")
    answer = "" if answer == "?" else answer  # of the test split
    parts = {"split": _split(row), **({"subject": subject.replace("_", " ")} if subject else {})}
    if area := row.text("l2-category"):
        parts["area"] = area
    question = row.needs("question")
    one = Question(row.needs("index", "id"), row, question, OPEN, parts=parts, cluster=row.picture)
    if choices:
        return [
            one._replace(
                text=with_choices(question, choices, row.text("hint")),
                wrap=BY_LETTER,
                options=LETTERS[: len(choices)],
                choices=choices,
                answers=letter_of(answer, choices),
            )
        ]
    right = _listed(answer) if answer.startswith("[") else (answer,) if answer else ()
    return [one._replace(answers=right)]


def _listed(text: str) -> tuple[str, ...]:
    """Of a list as Python writes it, which is how the files have them."""
    try:
        found = ast.literal_eval(text or "[]")
    except (ValueError, SyntaxError):
        raise DataError(f"no list, but {named(text)}") from None
    return tuple(map(str, found)) if isinstance(found, list | tuple) else (str(found),)


def measures(
    questions: Sequence[Question], right: np.ndarray, said: Sequence[str]
) -> list[Measure]:
    """Accuracy of all, of each discipline where the file tells it, and of each subject; of the
    validation split, where there is one.
    """
    counts = np.array([one.parts["split"] == SCORED for one in questions])
    if counts.any():
        questions = [one for one, is_so in zip(questions, counts, strict=True) if is_so]
        right = right[counts]
    return by_part("accuracy", questions, right, ("area", "subject"))
