"""WISE (arXiv 2503.07265): <prompt_id>.png, one picture a prompt, all in one folder.

The default since April 2026 is WISE_Verified with other prompts, judge and weights than the older
WISE: which one was drawn is told by the prompts' hash in the manifest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suder.evaluation.suites.layout import Item, check_n, check_names
from suder.inputs.files import DataError
from suder.storage.files import json_text, read_json
from suder.storage.shown import named

N = 1
FOLDER = "images"


def items(path: Path, n: int = N) -> list[Item]:
    """Of one of WISE's JSON files, lists of {"Prompt", "prompt_id"}, or a folder of them.

    Raises:
        DataError: it is no such file, or an id comes twice.
    """
    check_n("WISE", n, most=1)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    found = {}
    for file in files:
        rows = read_json(file)
        for row in rows if isinstance(rows, list) else [rows]:
            number = _id(row)
            if number is None:
                raise DataError(
                    f'{named(file)}: takes a list of objects with "Prompt" and a whole '
                    f'"prompt_id", as WISE has them; got {named(json_text(row))}'
                )
            if number in found:
                raise DataError(f"{named(file)}: prompt_id {number} comes twice")
            found[number] = Item(row["Prompt"], (f"{FOLDER}/{number}.png",))
    return check_names([found[number] for number in sorted(found)], named(path))


def _id(row: Any) -> int | None:
    if not isinstance(row, dict) or not isinstance(row.get("Prompt"), str):
        return None
    number = row.get("prompt_id")
    fits = type(number) is int and number >= 0 and bool(row["Prompt"].strip())
    return number if fits else None
