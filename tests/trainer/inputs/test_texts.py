"""Texts and JSON lines: one reader, whatever an editor on another system leaves in them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from suder.inputs import texts
from suder.inputs.files import DataError
from suder.inputs.texts import read_lines, read_prompts, read_rows
from suder.storage.shown import named


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.txt"


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"one", ["one"]),
        (b"one\n", ["one"]),
        (b"one\n\n", ["one", ""]),
        (b"\xef\xbb\xbfone\r\ntwo\r\n", ["one", "two"]),
        ("a\u2028b\x85c\x0b\x0c\x1c\nd".encode(), ["a\u2028b\x85c\x0b\x0c\x1c", "d"]),
        (b"one\rstill one\n", ["one\rstill one"]),
        (b"a\0b\n", ["a\0b"]),
    ],
)  # fmt: skip
def test_lines_end_at_a_newline_and_nowhere_else(file: Path, data: bytes, lines: list[str]) -> None:
    file.write_bytes(data)
    assert read_lines(file) == lines


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"one\ntwo\ncaf\xe9\n", r"a.txt, line 3: not UTF-8 text \(byte 0xe9\); save it as UTF-8"),
        ("one\ntwo".encode("utf-16"), r"line 1: not UTF-8 text .* it may be UTF-16"),
        (b"\xed\xa0\x80", "line 1: not UTF-8"),
    ],
)
def test_what_is_not_utf8_is_told_by_its_line(file: Path, data: bytes, told: str) -> None:
    file.write_bytes(data)
    with pytest.raises(DataError, match=told):
        read_lines(file)


def test_prompts(file: Path) -> None:
    file.write_bytes("\ufeffone\r\n\r\n  two \t words \na\0b\nthree\u2028four".encode())
    found = read_prompts(file)
    assert found.prompts == ["one", "two words", "three four"]
    assert found.dropped == [(2, "blank line"), (4, "a NUL, which no text holds")]


def test_rows_are_errors_of_their_own(file: Path) -> None:
    file.write_bytes(
        "\ufeff".encode()
        + b'{"a": "x\xe2\x80\xa8y\xc2\x85z"}\r\n\n{"a": \n[1]\n{"a": NaN}\n1e999\n'
        + b'"\\ud800"\n' + b"[" * 100_000 + b"\n" + b"9" * 5000 + b"\nnull"
    )  # fmt: skip
    rows = dict(read_rows(file))
    assert rows[1] == {"a": "x\u2028y\x85z"}
    assert (rows[4], rows[10]) == ([1], None)
    for number in (3, 5, 6, 7, 8, 9):
        assert isinstance(rows[number], DataError)
        assert str(rows[number]).startswith(f"line {number}: not JSON: ")
        assert len(str(rows[number])) < 400
    assert 2 not in rows


def test_regular_files_of_a_bounded_size(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(file)
    for path, why in (
        (file, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path, "not a regular file|a folder"),
        (tmp_path / "gone", "No such file"),
        (tmp_path / ("a" * 300), "File name too long"),
        (tmp_path / "a\0b", "embedded null byte"),
    ):
        for read in (read_lines, read_prompts, lambda path: list(read_rows(path))):
            with pytest.raises(DataError, match=why) as refused:
                read(path)
            assert str(refused.value).isprintable()
    monkeypatch.setattr(texts, "MAX_BYTES", 3)
    (tmp_path / "b.txt").write_bytes(b"four")
    with pytest.raises(DataError, match=r"b.txt: 4 bytes, and at most 3 are read"):
        read_lines(tmp_path / "b.txt")


def test_shown_is_one_printable_line() -> None:
    assert named("a\x1b[31m\n\u202eb\udce9\u00e9") == "a\\x1b[31m\\n\\u202eb\\udce9\u00e9"
    assert len(named("x" * 10**6)) < 400


def test_standard_input_and_a_text_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    given = io.TextIOWrapper(io.BytesIO("a  red\n\nblå".encode()))
    monkeypatch.setattr("sys.stdin", given)
    assert read_prompts(Path("-")) == (["a red", "blå"], [(2, "blank line")])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    with pytest.raises(DataError, match="standard input, line 1: not UTF-8"):
        read_prompts("-")
    with pytest.raises(DataError, match="no file a red circle; prompts are read from a file"):
        read_prompts("a red circle")
