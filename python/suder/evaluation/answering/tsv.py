"""VLMEvalKit's TSV files: pictures in base64, or, as a row's index, the picture of another row."""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from suder.inputs.files import DataError
from suder.storage.regular import NotRegular, open_regular
from suder.storage.shown import named

IMAGE = "image"
WIDEST = (1 << 31) - 1  # characters of a field
LONGEST_INDEX = 64  # what is longer is no index, but a picture
MISSING = ("", "nan")


def read_tsv(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, values, picture, read) of each row, see `Row`; a DataError in place of a bad one.

    Raises:
        DataError: there is no such file, or it has no head.
    """
    pictures: dict[str, tuple[str, int]] = {}  # by index: a digest, and where the row begins
    found: list[tuple[str, Any]] = []
    with _opened(path) as file:
        lines = _Lines(file)
        reader = csv.reader(lines, delimiter="\t")
        csv.field_size_limit(WIDEST)
        head = next(reader, [])
        if "index" not in head:
            raise DataError(f"{named(path)}: takes a TSV file whose first line has `index` in it")
        while True:
            begin, where = lines.offset, f"line {lines.number + 1}"
            try:
                fields = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                found.append((where, DataError(str(error))))
                continue
            if fields:
                found.append((where, _values(head, fields)))
                if isinstance(found[-1][1], dict):
                    image = found[-1][1].get(IMAGE, "")
                    if len(image) > LONGEST_INDEX:
                        digest = hashlib.sha256(image.encode()).hexdigest()
                        pictures[found[-1][1]["index"]] = digest, begin
                        found[-1][1][IMAGE] = found[-1][1]["index"]
    for where, values in found:
        if isinstance(values, DataError):
            yield where, values
            continue
        of = values.pop(IMAGE, None)
        if of is None:
            yield where, (values,)
        elif of not in pictures:
            yield (
                where,
                DataError(f"its picture is said to be that of row {named(of)}, which has none"),
            )
        else:
            digest, begin = pictures[of]
            yield where, (values, digest, partial(_pictures, path, head, begin))


def _values(head: list[str], fields: list[str]) -> dict[str, str] | DataError:
    if len(fields) != len(head):
        return DataError(f"{len(fields)} columns, and the first line has {len(head)}")
    values = {name: value for name, value in zip(head, fields, strict=True) if value not in MISSING}
    if any("\udc80" <= c <= "\udcff" for v in values.values() if not v.isascii() for c in v):
        return DataError("not UTF-8 text")
    return values if "index" in values else DataError("no index")


def _pictures(path: Path, head: list[str], begin: int) -> list[bytes]:
    with _opened(path) as file:
        file.seek(begin)
        image = next(csv.reader(_Lines(file), delimiter="\t"))[head.index(IMAGE)]
    try:
        texts = ast.literal_eval(image) if image.startswith("[") else [image]
        return [base64.b64decode(text) for text in texts]
    except (ValueError, SyntaxError, TypeError) as error:
        raise DataError(f"its picture is no base64: {named(error)}") from None


class _Lines:
    """Decoded lines, and how far they have been read. `number` counts them from 0."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.offset, self.number = file, file.tell(), 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.file.readline()
        if not line:
            raise StopIteration
        if self.offset == 0:
            line_text = line.decode("utf-8-sig", "surrogateescape")
        else:
            line_text = line.decode("utf-8", "surrogateescape")
        self.offset += len(line)
        self.number += 1
        return line_text


def _opened(path: Path, opener: Callable[[Path], int] = open_regular) -> BinaryIO:
    try:
        return os.fdopen(opener(path), "rb")
    except NotRegular as error:
        raise DataError(f"{named(path)}: {error}") from None
    except OSError as error:
        raise DataError(f"{named(path)}: {error.strerror or error}") from None
