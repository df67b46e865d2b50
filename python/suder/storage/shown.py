"""Text that came from outside, made fit to be printed: nothing in it moves a cursor or hides."""

from __future__ import annotations

import unicodedata

LONGEST = 4000  # characters of a message; what is cut is said

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


def _shown(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")
