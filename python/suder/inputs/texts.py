"""The one reader of the user's texts and of JSON lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from suder.inputs.files import DataError, read_file
from suder.storage.shown import named

MAX_BYTES = 1 << 28  # of a file


class Prompts(NamedTuple):
    """Prompts, and (line number, why) of the lines that hold none."""

    prompts: list[str]
    dropped: list[tuple[int, str]]


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a UTF-8 file, with or without a byte order mark, ended by LF or CR LF alone.

    Raises:
        DataError: there is no such file, or it is not UTF-8; the message names the line.
    """
    return _lines_of(read_file(path, MAX_BYTES), path)


def _lines_of(data: bytes, path: object) -> list[str]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        hint = "; it may be UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise DataError(
            f"{named(path)}, line {number}: not UTF-8 text (byte {data[error.start]:#04x}{hint}); "
            "save it as UTF-8"
        ) from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def read_prompts(path: str | os.PathLike[str]) -> Prompts:
    """One prompt a line, its blanks made single; of the name "-", standard input's.

    Raises:
        DataError: as `read_lines`; a prompt in the place of a file's name is told what to do.
    """
    name = os.fspath(path)
    if name == "-":
        lines = _lines_of(sys.stdin.buffer.read(MAX_BYTES), "standard input")
    elif " " in name and not os.path.lexists(name):
        raise DataError(
            f"there is no file {named(name)}; prompts are read from a file, one a line, or of - "
            "from standard input: `echo TEXT | suder ...`"
        )
    else:
        lines = read_lines(path)
    found = Prompts([], [])
    for number, line in enumerate(lines, 1):
        prompt = " ".join(line.split())
        if prompt and "\0" not in prompt:
            found.prompts.append(prompt)
        else:
            found.dropped.append((number, "a NUL, which no text holds" if prompt else "blank line"))
    return found


def read_rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, Any]]:
    """Line numbers and values of a file of JSON lines; blank lines are passed over.

    The value of a line that is not JSON is a `DataError`, which names it: one bad line says nothing
    about the others.

    Raises:
        DataError: as `read_lines`.
    """
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            try:
                row = json.loads(line, parse_constant=_no_number)
                # What cannot be written again: 1e999, and halves of surrogate pairs.
                json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
                yield number, row
            except (ValueError, RecursionError) as error:
                yield number, DataError(f"line {number}: not JSON: {named(error)}")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
