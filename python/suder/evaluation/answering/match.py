"""Which option a written answer means, by VLMEvalKit's rules without a judge (exact matching)."""

from __future__ import annotations

import re
from collections.abc import Sequence

LAST = 5  # words of an answer among which a letter stands for an option
STATED = re.compile(r"(?i)answer\s+is\s+\**([A-Z])\b")


def matched(text: str, options: Sequence[str], choices: Sequence[str]) -> str:
    """One of the options, or "" where none is meant, or more than one.

    Args:
        choices: what lettered options stand for; none of yes and no.
    """
    return _letter(text, options, choices) if choices else _word(text, options)


def is_right(text: str, answers: Sequence[str]) -> bool:
    """Whether an open question's answer is one that is right: the number, or the words in it."""
    said = " ".join(text.lower().split()).rstrip(".")
    numbers = [_number(one) for one in re.findall(r"-?[\d,]*\.?\d+", said)]
    for answer in answers:
        right = " ".join(answer.lower().split()).rstrip(".")
        number = _number(right)
        if number is None:
            if right and re.search(rf"(?<!\w){re.escape(right)}(?!\w)", said):
                return True
        elif any(one is not None and round(one, 2) == round(number, 2) for one in numbers):
            return True
    return False


def _word(text: str, options: Sequence[str]) -> str:
    words = re.findall(r"\w+", text.lower())
    found = [option for option in options if option.lower() in words]
    return found[0] if len(found) == 1 else ""


def _letter(text: str, options: Sequence[str], choices: Sequence[str]) -> str:
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", text).split()
    found = [option for option in options if option in words]
    if len(found) == 1 and len(words) - words.index(found[0]) < LAST:
        return found[0]
    stated = STATED.search(text)
    if stated and stated[1].upper() in options:
        return stated[1].upper()
    said = text.lower()
    if len(said) > 2 * sum(map(len, choices)):  # as long as all of them: nothing is chosen
        return ""
    there = [o for o, choice in zip(options, choices, strict=True) if choice.lower() in said]
    return there[0] if len(there) == 1 else ""


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").rstrip("%"))
    except ValueError:
        return None
