"""The one reader of the user's texts and of JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from suder.inputs.pictures import DataError


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error})") from None


def read_rows(path: Path) -> list[tuple[int, Any]]:
    """Line numbers and values of a file of JSON lines; blank lines are passed over.

    Raises:
        DataError: a line is not JSON.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not JSON: {error}") from None
    return rows
