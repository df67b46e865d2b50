"""Pictures with a text of their own: beside them, or named in a metadata.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from suder.inputs.files import DataError
from suder.inputs.texts import read_lines, read_rows
from suder.storage.shown import named

METADATA = "metadata.jsonl"  # as `datasets` has it in a folder of pictures
Lost = list[tuple[str, str]]


def own_texts(pictures: Iterable[str], folder: Path, place: Path, lost: Lost) -> dict[str, str]:
    """The text of each picture that has one, by the picture's path.

    Args:
        pictures: resolved paths.
        folder: of the pictures, which may have a `metadata.jsonl` in it or in folders in it.
        place: `folder` again, or a file of JSON lines that alone tells the texts.
        lost: gets what was left out, with the reason.

    Raises:
        DataError: there is no such file.
    """
    pictures = list(pictures)
    if place.is_dir():
        files = sorted(folder.rglob(METADATA))
    elif place.is_file():
        files = [place]
    else:
        raise DataError(f"data.prompts: no folder or file {named(place)}")
    told: dict[str, str] = {}
    for file in files:
        told |= _metadata(file, set(pictures), lost)
    found: dict[str, str] = {}
    for path in pictures:
        if path in told:
            text = told[path]
        elif place.is_dir() and (beside := Path(path).with_suffix(".txt")).is_file():
            try:
                text = " ".join(read_lines(beside))
            except DataError as error:
                lost.append((path, str(error)))
                continue
        else:
            lost.append((path, "has no text of its own (data.pairing)"))
            continue
        text = " ".join(text.split())
        if not text or "\0" in text:
            lost.append((path, "its own text is empty, or holds a NUL"))
            continue
        found[path] = text
    return found


def together(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """A name for each pair, the same for those that share a content or a text, or are linked so.

    Args:
        pairs: content of a picture, and its text.
    """
    root: dict[tuple[str, str], tuple[str, str]] = {}

    def top(node: tuple[str, str]) -> tuple[str, str]:
        while root.setdefault(node, node) != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    for content, text in pairs:
        one, other = sorted((top(("picture", content)), top(("text", text))))
        root[other] = one
    return [" ".join(top(("picture", content))) for content, _ in pairs]


def _metadata(file: Path, pictures: set[str], lost: Lost) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, row in read_rows(file):
        where = f"{file}:{number}"
        if isinstance(row, DataError):
            lost.append((where, str(row)))
        elif not _is_row(row):
            lost.append((where, 'takes {"file_name": a path from here, "text": a text}'))
        elif (path := str((file.parent / row["file_name"]).resolve())) not in pictures:
            lost.append((where, f"{named(row['file_name'])}: no picture that is read"))
        else:
            found[path] = row["text"]
    return found


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(
        isinstance(row.get(name), str) and "\0" not in row[name] for name in ("file_name", "text")
    )
