"""POPE (arXiv 2305.10355): does a model see what is not there? Yes or no, by their likelihood."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from suder.evaluation.statistics import Interval, ratio_interval
from suder.inputs.files import DataError
from suder.inputs.pictures import load_picture
from suder.inputs.texts import read_rows
from suder.method.judge import SelfJudge
from suder.models.base import UnifiedModel
from suder.storage.files import json_text
from suder.storage.shown import named

# As VLMEvalKit asks yes-no questions.
QUESTION = "{text}\nAnswer the question using a single word or phrase."
AT_ONCE = 64  # questions whose pictures are held
Row = dict[str, Any]


def questions(path: Path) -> list[Row]:
    """Rows {"question_id", "image", "text", "label"} of one of POPE's files.

    Raises:
        DataError: a line is no such row, or there is none.
    """
    found: list[Row] = []
    for line, row in read_rows(path):
        if isinstance(row, DataError):
            raise DataError(f"{named(path)}, {row}")
        texts = isinstance(row, dict) and all(
            isinstance(row.get(k), str) for k in ("image", "text")
        )
        if not texts or row.get("label") not in ("yes", "no") or "question_id" not in row:
            raise DataError(
                f'{named(path)}, line {line}: takes an object with "question_id", "image", "text" '
                f'and "label" (yes or no); got {named(json_text(row))}'
            )
        found.append(row)
    if not found:
        raise DataError(f"{named(path)}: no questions in it")
    return found


def answer(
    model: UnifiedModel, rows: Sequence[Row], images: Path, question: str = QUESTION
) -> Iterator[list[Row]]:
    """The rows with "question", "answer" (yes if p >= 0.5) and "p_yes" = p(yes) / (p(yes) + p(no)).

    Raises:
        ValueError: the model cannot be asked, or gives no number.
        DataError: a picture cannot be read.
    """
    judge = SelfJudge(model, template=question)
    for first in range(0, len(rows), AT_ONCE):
        part = rows[first : first + AT_ONCE]
        pictures = [load_picture(images / row["image"], model.background) for row in part]
        said = []
        found = judge(pictures, [row["text"] for row in part]).tolist()
        for row, p_yes in zip(part, found, strict=True):
            if math.isnan(p_yes):
                raise ValueError(f"no answer to question {row['question_id']}: it is too long, or "
                                 "the model gives numbers that are not finite")  # fmt: skip
            yes = "yes" if p_yes >= 0.5 else "no"
            said.append({**row, "question": row["text"], "answer": yes, "p_yes": p_yes})
        yield said


def scores(rows: Sequence[Row]) -> dict[str, Interval]:
    """POPE's five numbers, of "yes" as what is looked for; questions of one picture vary together.

    NaN where nothing was said or asked that a number counts.
    """
    said = np.array([row["answer"] == "yes" for row in rows], bool)
    true = np.array([row["label"] == "yes" for row in rows], bool)
    picture = [row["image"] for row in rows]
    hit, every = (said & true).astype(float), np.ones(len(rows))
    counted = {
        "accuracy": (said == true, every),
        "precision": (hit, said),
        "recall": (hit, true),
        "F1": (2 * hit, said.astype(float) + true),
        "yes ratio": (said, every),
    }
    return {name: ratio_interval(top, bottom, picture) for name, (top, bottom) in counted.items()}
