"""GenEval (arXiv 2310.11513): NNNNN/metadata.jsonl and NNNNN/samples/NNNN.png of each row.

Its `evaluate_images.py` scores every file of digits in `samples`, so nothing else goes there.
"""

from __future__ import annotations

from pathlib import Path

from suder.evaluation.suites.layout import Item, check_n, check_names
from suder.inputs.files import DataError
from suder.inputs.texts import read_rows
from suder.storage.files import json_text
from suder.storage.shown import named

N = 4
FOLDER = "."  # what its scorer is given, from --output on


def items(path: Path, n: int = N) -> list[Item]:
    """Of GenEval's `evaluation_metadata.jsonl`: rows with "prompt", "tag" and "include".

    Raises:
        DataError: a line is no such row.
    """
    check_n("GenEval", n)
    found: list[Item] = []
    for line, row in read_rows(path):
        if isinstance(row, DataError):
            raise DataError(f"{named(path)}, {row}")
        known = isinstance(row, dict) and all(key in row for key in ("tag", "include", "prompt"))
        if not known or not isinstance(row["prompt"], str) or not row["prompt"].strip():
            raise DataError(
                f'{named(path)}, line {line}: takes an object with "tag", "include" and "prompt", '
                f"as GenEval's evaluation_metadata.jsonl has them; got {named(json_text(row))}"
            )
        folder = f"{len(found):05d}"
        pictures = tuple(f"{folder}/samples/{i:04d}.png" for i in range(n))
        metadata = (f"{folder}/metadata.jsonl", json_text(row) + "\n")
        found.append(Item(row["prompt"], pictures, (metadata,)))
    return check_names(found, named(path))
