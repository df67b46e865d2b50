"""One question about a picture, and the one way in which suites are read."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from suder.evaluation.answering.table import Row, Table
from suder.inputs.as_seen import Colour, side_by_side
from suder.inputs.files import DataError
from suder.inputs.pictures import PICTURE_ENDINGS, decode_picture, load_picture
from suder.storage.shown import named

YES_NO = ("Yes", "No")
LETTERS = tuple(string.ascii_uppercase)
# As VLMEvalKit's class of Janus asks.
IN_A_WORD = "{text}\nAnswer the question using a single word or phrase."
BY_LETTER = "{text}\n\nAnswer with the option's letter from the given choices directly."
OPEN = "{text}\nAnswer the question directly."


class Question(NamedTuple):
    """
    Attributes:
        key: no other question's of the suite; VLMEvalKit's index.
        row: of the table.
        text: what is asked, options included.
        wrap: what is around the text, as `{text}`, unless the user says otherwise.
        options: what may be answered; none of an open question.
        choices: what the options stand for; none of yes and no.
        answers: the right option; of an open question all that are right; none: nobody knows.
        names: of its pictures in the folder; none: they are in the file.
        cluster: questions of one vary together.
        parts: by name, what a suite's numbers are told by.
        made: whether no row of the file is this question, but one with other letters.
    """

    key: str
    row: Row
    text: str
    wrap: str
    options: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    cluster: str = ""
    parts: dict[str, str] = {}  # noqa: RUF012 - never written to
    made: bool = False

    def asked(self, wrap: str | None = None) -> str:
        around = self.wrap if wrap is None or not self.options else wrap
        return around.replace("{text}", self.text)


class Asked(NamedTuple):
    """A suite's questions, and where a row is none and why."""

    questions: list[Question]
    bad: list[tuple[str, str]]


def each(table: Table, make: Callable[[Row], Sequence[Question]]) -> Asked:
    """The questions that the rows are; `make` raises DataError for one that is none.

    Raises:
        DataError: none is one.
    """
    found: dict[str, Question] = {}
    bad = list(table.bad)
    for row in table.rows:
        try:
            made = make(row)
            twice = [one.key for one in made if one.key in found]
            if twice:
                raise DataError(f"{named(twice[0])} was there before")
            found |= {one.key: one for one in made}
        except DataError as error:
            bad.append((row.where, str(error)))
    if not found:
        raise DataError(f"{table.name}: no question in it: {bad[0][0]}: {bad[0][1]}")
    return Asked(list(found.values()), bad)


def choices_of(row: Row) -> tuple[str, ...]:
    """Of columns A, B, ..., up to the first that is empty; as text, whatever a file made of it."""
    found = [row.text(letter) for letter in LETTERS]
    return tuple(found[: found.index("")])


def with_choices(question: str, choices: Sequence[str], hint: str = "") -> str:
    """The text of a question with lettered options."""
    lines = [f"Hint: {hint}"] if hint else []
    lettered = [f"{letter}. {one}" for letter, one in zip(LETTERS, choices, strict=False)]
    return "\n".join([*lines, question, *lettered])


def letter_of(answer: str, choices: Sequence[str]) -> tuple[str, ...]:
    """The right letter, or none where the file does not say; DataError where it is no option's."""
    letter = answer.upper()
    if letter and letter not in LETTERS[: len(choices)]:
        raise DataError(f"its answer is {named(answer)}, of {len(choices)} options")
    return (letter,) if letter else ()


def yes_or_no(value: str) -> tuple[str, ...]:
    """The same of yes and no, which some files write as 1 and 0."""
    known = {"yes": "Yes", "no": "No", "1": "Yes", "0": "No", "": ""}
    if value.lower() not in known:
        raise DataError(f"its answer is {named(value)}, and takes yes or no")
    found = known[value.lower()]
    return (found,) if found else ()


def picture_of(question: Question, images: Path | None, background: Colour) -> np.ndarray:
    """uint8 `[H, W, 3]`; several side by side, on the model's background.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    where = question.row.where
    if question.names:
        if images is None:
            raise DataError(
                "its picture is not in the file: name the folder of pictures (--images)"
            )
        found = [load_picture(_in(images, name), background) for name in question.names]
    else:
        found = [decode_picture(data, f"of {where}", background) for data in question.row.read()]
    if not found:
        raise DataError("it has no picture")
    return side_by_side(found, background)


def _in(folder: Path, name: str) -> Path:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"picture {named(name)} is not in the folder of pictures")
    endings = ("", *PICTURE_ENDINGS)  # some files leave the ending out
    there = [folder / f"{name}{ending}" for ending in endings]
    return next((one for one in there if one.is_file()), folder / path)


def values_of(question: Question) -> dict[str, Any]:
    """The row's columns that are text or numbers."""
    return {k: v for k, v in question.row.values.items() if isinstance(v, str | int | float)}
