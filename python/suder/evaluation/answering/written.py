"""What a suite's evaluation writes down: scores.json, scores.md, and each side's predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from suder.evaluation.answering.answer import Answer
from suder.evaluation.answering.predictions import write_predictions
from suder.evaluation.answering.question import Asked, Question
from suder.evaluation.answering.score import lines, score
from suder.storage.files import finite, write_json, write_text

SCORES = "scores.json"
NAMED = 100  # questions left out that are named; all are counted


def found_of(
    suite: ModuleType,
    asked: Asked,
    sides: Mapping[str, Mapping[str, Answer]],
    about: Mapping[str, Any],
    same: bool = False,
) -> dict[str, Any]:
    """All that an evaluation found, as a JSON object.

    Args:
        sides: answers by key, of "tuned" alone or of "base", too.
        about: the models' names, the file and how was asked.
        same: both are one model, asked the same way.
    """
    base = sides.get("base")
    left_out = list(asked.bad)
    for one in asked.questions:
        why = [f"{side}: {answers[one.key]['skipped']}" for side, answers in sides.items()
               if "skipped" in answers.get(one.key, {})]  # fmt: skip
        if why:
            left_out.append((f"question {one.key} ({one.row.where})", why[0]))
    return {
        "suite": suite.TITLE,
        **about,
        "questions": len(asked.questions),
        "pictures": len({one.names or one.row.picture for one in asked.questions}),
        "without_answer": sum(not one.answers for one in asked.questions),
        "not_understood": {side: sum(not answer.get("said", "-") for answer in answers.values())
                           for side, answers in sides.items()},
        "left_out": len(left_out),
        "left_out_named": [{"where": where, "why": why} for where, why in left_out[:NAMED]],
        "rows": score(suite.measures, asked.questions, sides["tuned"], base, same),
    }  # fmt: skip


def write_found(
    folder: Path,
    suite: ModuleType,
    dataset: str,
    questions: Sequence[Question],
    sides: Mapping[str, Mapping[str, Answer]],
    found: Mapping[str, Any],
) -> list[Path]:
    """Writes all of it, and returns the paths of what people read."""
    write_json(folder / SCORES, finite(dict(found)))
    write_text(folder / "scores.md", markdown(found))
    made = [folder / "scores.md", folder / SCORES]
    for side, answers in sides.items():
        made += write_predictions(
            folder / side, str(found[side]), dataset, suite.TASK, questions, answers,
            found["wrap"],
        )  # fmt: skip
    return made


def markdown(found: Mapping[str, Any]) -> str:
    """The table for a page or an issue, with what it is of."""
    head, *rows = lines(found["rows"])
    table = [head, tuple("---" if i < 2 else "---:" for i in range(len(head))), *rows]
    said = [f"# {found['suite']}", "", *in_words(found), ""]
    return "\n".join([*said, *(f"| {' | '.join(map(_cell, row))} |" for row in table), ""])


def in_words(found: Mapping[str, Any]) -> list[str]:
    """What the table is of, a sentence a line."""
    models = f"tuned: {found['tuned']}"
    if "base" in found:
        models = f"base: {found['base']}; {models}"
    how = "the options' likelihood" if found["by"] == "likelihood" else "what the model writes"
    said = [
        f"{models}.",
        f"{found['questions']} questions, {found['pictures']} pictures, of {found['file']}.",
        f"Answered by {how}.",
    ]
    if count := found["left_out"]:
        named = found["left_out_named"][0]
        said.append(f"Left out: {count}, such as {named['where']}: {named['why']}.")
    if count := found["without_answer"]:
        said.append(f"{count} have no known answer and are not scored.")
    unclear = {side: count for side, count in found["not_understood"].items() if count}
    if unclear:
        counts = ", ".join(f"{side} {count}" for side, count in unclear.items())
        said.append(f"Written answers that name no option, or several, count as wrong: {counts}.")
    if "base" in found:
        said.append("Differences are paired; 95% intervals are over whole pictures or sets.")
    return said


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
