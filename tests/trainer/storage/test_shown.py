"""What is printed of others' text: all of it to be seen, none of it obeyed."""

from __future__ import annotations

import pytest

from suder.storage.shown import LONGEST, counted, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a café, 漢字 and 🙂", "a café, 漢字 and 🙂"),
        ("line\n\tnext", "line\n\tnext"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m \x00 \r", r"\x9b31m \x00 \r"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("zero\u200bwidth \u2028", r"zero\u200bwidth \u2028"),
        ("no utf-8 \udcff", r"no utf-8 \udcff"),
    ],
)
def test_nothing_is_obeyed(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert shown(text).encode("utf-8")


def test_length_is_bounded_and_what_is_cut_is_said() -> None:
    cut = shown("x" * 1_000_000)
    assert len(cut) < LONGEST + 50
    assert cut.endswith("... (996000 characters more)")
    assert shown("x" * LONGEST) == "x" * LONGEST
    assert shown("x" * 1_000_000, None) == "x" * 1_000_000


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 prompts"), (1, "1 prompt"), (2, "2 prompts"), (21, "21 prompts")]
)
def test_one_is_no_plural(number: int, words: str):
    assert counted(number, "prompt") == words
    assert counted(number, "process", "processes").endswith("ess") == (number == 1)
