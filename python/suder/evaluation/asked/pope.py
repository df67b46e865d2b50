"""POPE (arXiv 2305.10355): does a model see what is not there?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from suder.evaluation.answering.question import IN_A_WORD, YES_NO, Asked, Question, each, yes_or_no
from suder.evaluation.answering.score import ALL, Measure
from suder.evaluation.answering.table import Row, Table

TITLE = "POPE"
READS = "coco_pope_random.json, or VLMEvalKit's POPE.tsv, or lmms-lab/POPE"
DATASET, TASK = "POPE", "pope"


def questions(table: Table) -> Asked:
    """Rows {"question_id", "image", "text", "label"}, or "question" and "answer" in their place."""
    return each(table, _question)


def _question(row: Row) -> list[Question]:
    text = row.needs("question", "text").replace(" Please answer yes or no.", "")
    name = row.text("image", "image_path") if not row.picture else ""
    parts = {"category": row.text("category")} if row.text("category") else {}
    # A hub's file numbers its questions anew in each category.
    key = row.needs("index", "question_id")
    key = f"{parts['category']} {key}" if "index" not in row.values and parts else key
    return [
        Question(
            key, row, text, IN_A_WORD, YES_NO,
            answers=yes_or_no(row.needs("answer", "label")),
            names=(name,) if name else (),
            cluster=name or row.picture,
            parts=parts,
        )
    ]  # fmt: skip


def measures(
    questions: Sequence[Question], right: np.ndarray, said: Sequence[str]
) -> list[Measure]:
    """POPE's five numbers, of yes as what is looked for; of all, and of each category."""
    names = [one.parts.get("category", "").split(",") for one in questions]
    parts = sorted({name for some in names for name in some if name})
    found = _five(ALL, questions, said)
    for part in parts if len(parts) > 1 else ():
        of = [part in some for some in names]
        chosen = [one for one, is_so in zip(questions, of, strict=True) if is_so]
        found += _five(part, chosen, [one for one, is_so in zip(said, of, strict=True) if is_so])
    return found


def _five(part: str, questions: Sequence[Question], said: Sequence[str]) -> list[Measure]:
    yes = np.array([one == "Yes" for one in said], float)
    true = np.array([one.answers == ("Yes",) for one in questions], float)
    right = np.array([s in one.answers for s, one in zip(said, questions, strict=True)], float)
    hit, every = yes * true, np.ones(len(yes))
    counted = {
        "accuracy": (right, every),
        "precision": (hit, yes),
        "recall": (hit, true),
        "F1": (2 * hit, yes + true),
        "yes ratio": (yes, every),
    }
    clusters = [one.cluster for one in questions]
    return [Measure(name, part, *fraction, clusters) for name, fraction in counted.items()]
