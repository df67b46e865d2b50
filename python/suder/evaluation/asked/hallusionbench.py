"""HallusionBench (arXiv 2310.14566): yes or no about figures that mislead, and about changed ones.

aAcc counts questions, fAcc figures of which every question is right, qAcc questions that are right
of every figure. Questions without a figure are left out, as VLMEvalKit leaves them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from suder.evaluation.answering.question import IN_A_WORD, YES_NO, Asked, Question, each, yes_or_no
from suder.evaluation.answering.score import Measure, by_part
from suder.evaluation.answering.table import Row, Table
from suder.inputs.files import DataError

TITLE = "HallusionBench"
READS = "HallusionBench.json, or VLMEvalKit's HallusionBench.tsv, or lmms-lab/HallusionBench"
DATASET, TASK = "HallusionBench", "hallusion_bench_image"


def questions(table: Table) -> Asked:
    """Rows of category, subcategory, set_id, figure_id, question_id, question and gt_answer; in the
    TSV the three numbers end the index.
    """
    return each(table, _question)


def _question(row: Row) -> list[Question]:
    numbers = row.text("index").split("_")[-3:]
    if len(numbers) < 3:
        numbers = [row.needs(name) for name in ("set_id", "figure_id", "question_id")]
    kind, of = row.text("category"), row.text("l2-category", "subcategory")
    name = "" if row.picture else row.text("filename", "image_path")
    if not name and not row.picture:
        raise DataError("a question without a figure")
    place = "_".join([kind, of, numbers[0]])
    return [
        Question(
            row.text("index") or "_".join([kind, of, *numbers]), row, row.needs("question"),
            IN_A_WORD, YES_NO,
            answers=yes_or_no(row.text("answer", "gt_answer")),
            names=(name.removeprefix("./").removeprefix("hallusion_bench/"),) if name else (),
            cluster=place,
            parts={"category": kind, "l2-category": of, "figure": f"{place} f{numbers[1]}",
                   "question": f"{place} q{numbers[2]}"},
        )
    ]  # fmt: skip


def measures(
    questions: Sequence[Question], right: np.ndarray, said: Sequence[str]
) -> list[Measure]:
    """The three numbers of all, and of each category and subcategory."""
    columns = ("category", "l2-category")
    return [
        *by_part("aAcc", questions, right, columns),
        *by_part("fAcc", questions, right, columns, lambda one: one.parts["figure"]),
        *by_part("qAcc", questions, right, columns, lambda one: one.parts["question"]),
    ]
