"""Text that came from outside, made fit to be printed: nothing in it moves a cursor or hides."""

from __future__ import annotations

import unicodedata

LONGEST = 4000  # characters of a message; what is cut is said
LONGEST_NAME = 300  # more of a path or a line than a person wants to read

# Control characters, format characters (marks that turn the direction of writing among them),
# halves of surrogate pairs (bytes of a file's name that are no UTF-8), line separators.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_KEPT = frozenset("\n\t")


def shown(text: str, longest: int | None = LONGEST) -> str:
    r"""The text with control characters as escapes (`\x1b`, `\u202e`), cut at `longest`.

    New lines and tabs stay: a message may have several lines.
    """
    cut = len(text) - longest if longest is not None and len(text) > longest else 0
    if cut:
        text = text[:longest]
    if not text.isascii() or not text.isprintable():
        text = "".join(map(_shown, text))
    return f"{text}... ({cut} characters more)" if cut else text


def named(value: object) -> str:
    """A path, or a word of the user's, as one line inside a message: new lines are escaped, too,
    and what is very long is cut in the middle."""
    text, half = str(value), LONGEST_NAME // 2
    if len(text) > LONGEST_NAME:
        text = f"{text[:half]}...{text[-half:]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def counted(number: int, one: str, more: str = "") -> str:
    """A number of things in words: 1 prompt, 2 prompts."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def line_due(done: int, total: int) -> bool:
    """Whether a tenth more of long work is done: where nobody sees a bar, it says so in a line."""
    return done * 10 // total > (done - 1) * 10 // total


def _shown(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")
