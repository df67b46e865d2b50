"""SEED-Bench (arXiv 2307.16125): questions about pictures, by dimension; none about films."""

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

TITLE = "SEED-Bench"
READS = "SEED-Bench.json, or VLMEvalKit's SEEDBench_IMG.tsv, or lmms-lab/SEED-Bench"
DATASET, TASK = "SEEDBench_IMG", "seedbench"
COLUMNS = ("choice_a", "choice_b", "choice_c", "choice_d")


def questions(table: Table) -> Asked:
    """Rows of question, choice_a to choice_d and answer; the TSV's columns are A to D."""
    known = table.beside.get("question_type")
    names = {str(number): name for name, number in known.items()} if isinstance(known, dict) else {}
    return each(table, lambda row: _question(row, names))


def _question(row: Row, names: dict[str, str]) -> list[Question]:
    if row.text("data_type") == "video":
        raise DataError("a question about a film")
    choices = tuple(one for name in COLUMNS if (one := row.text(name))) or choices_of(row)
    if len(choices) < 2:
        raise DataError(f"{len(choices)} options, and takes two or more")
    dimension = row.text("category")
    if not dimension and (number := row.text("question_type_id")):
        dimension = names.get(number, f"dimension {number}")
    name = "" if row.picture else row.text("data_id", "image_path")
    return [
        Question(
            row.needs("index", "question_id"), row, with_choices(row.needs("question"), choices),
            BY_LETTER, LETTERS[: len(choices)], choices, letter_of(row.text("answer"), choices),
            names=(name,) if name else (),
            cluster=name or row.picture,
            parts={"dimension": dimension} if dimension else {},
        )
    ]  # fmt: skip


def measures(
    questions: Sequence[Question], right: np.ndarray, said: Sequence[str]
) -> list[Measure]:
    """Accuracy of all and of each dimension."""
    return by_part("accuracy", questions, right, ("dimension",))
