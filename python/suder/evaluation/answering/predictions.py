"""Answers as other people's programs read them: VLMEvalKit's predictions, lmms-eval's samples."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suder.evaluation.answering.answer import Answer
from suder.evaluation.answering.question import Question, values_of
from suder.evaluation.answering.score import is_answered_right
from suder.storage.files import json_text, write_jsonl, write_text

# Columns of `Question` by VLMEvalKit's names, where the suite's own file has others.
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def write_predictions(
    folder: Path,
    model: str,
    dataset: str,
    task: str,
    questions: Sequence[Question],
    answers: Mapping[str, Answer],
    wrap: str | None = None,
) -> list[Path]:
    """`<model>_<dataset>.tsv` and `suder_samples_<task>.jsonl` of what the file itself asks.

    The first is read by VLMEvalKit's `run.py --mode eval --reuse` with PRED_FORMAT=tsv, the second
    has the fields of lmms-eval's `--log_samples`.
    """
    given = [one for one in questions if not one.made and "said" in answers.get(one.key, {})]
    table = folder / f"{file_name(model)}_{dataset}.tsv"
    write_text(table, _table(given, answers))
    samples = folder / f"suder_samples_{task}.jsonl"
    write_jsonl(samples, [_sample(place, one, answers[one.key], wrap)
                          for place, one in enumerate(given)])  # fmt: skip
    return [table, samples]


def file_name(model: str) -> str:
    """A model's name as part of a file's: the last of its path that says something."""
    parts = [part for part in Path(model).parts if part not in ("/", ".", "..")]
    if parts[-1:] == ["model"] and len(parts) > 1:
        parts.pop()  # a run's
    return re.sub(r"[^\w.-]+", "-", parts[-1]) if parts else "model"


def _table(questions: Sequence[Question], answers: Mapping[str, Answer]) -> str:
    rows = []
    for one in questions:
        row = {"index": one.key, **values_of(one)}
        if "question" not in row:
            row["question"] = row.pop("text", one.text)
        row |= dict(zip(LETTERS, one.choices, strict=False))
        row.setdefault("answer", one.answers[0] if one.answers else "")
        if one.options == ("Yes", "No") and one.answers:
            row["answer"] = one.answers[0]
        rows.append({**row, "prediction": str(answers[one.key]["text"])})
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "prediction"))
    out = io.StringIO()
    writer = csv.DictWriter(out, [*columns, "prediction"], delimiter="\t", quoting=csv.QUOTE_ALL,
                            lineterminator="\n")  # fmt: skip
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _sample(place: int, question: Question, answer: Answer, wrap: str | None) -> dict[str, Any]:
    doc = values_of(question)
    found = {
        "doc_id": place,
        "target": ", ".join(question.answers),
        "filtered_resps": str(answer["text"]),
        "token_counts": [None],
        "doc_hash": hashlib.sha256(json_text(doc, indent=2).encode()).hexdigest(),
        "input": question.asked(wrap),
        "key": question.key,
    }
    if question.answers:
        found["exact_match"] = float(is_answered_right(question, answer))
    if answer.get("logprob"):
        found["logprob"] = answer["logprob"]
    return found
