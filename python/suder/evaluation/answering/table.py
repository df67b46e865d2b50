"""A suite's official file as rows; pictures stay in it until they are looked at.

A row that cannot be read is passed over and named: one says nothing about the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from suder.evaluation.answering.parquet import read_parquet
from suder.evaluation.answering.tsv import read_tsv
from suder.inputs.files import DataError, read_file
from suder.inputs.texts import read_rows
from suder.storage.shown import named

LARGEST = 1 << 30  # bytes of a JSON file, which is read at once
READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}


class Row(NamedTuple):
    """
    Attributes:
        where: in the file, for people.
        values: by column; what is empty is not in it, and no picture is.
        picture: by which rows of one picture are known, "" where the file holds none.
        read: the bytes of its pictures.
    """

    where: str
    values: dict[str, Any]
    picture: str = ""
    read: Callable[[], list[bytes]] = list

    def text(self, *names: str) -> str:
        """The first of these columns that is there, as text without blanks around it; or ""."""
        for name in names:
            value = self.values.get(name)
            if value is not None and not isinstance(value, dict | list):
                return str(value).strip()
        return ""

    def needs(self, *names: str) -> str:
        """The same of a column that has to be there; raises DataError."""
        if not (value := self.text(*names)):
            raise DataError(f"no {' or '.join(names)}")
        return value


class Table(NamedTuple):
    """
    Attributes:
        name: of the file, without its ending.
        bad: where a row cannot be read, and why.
        beside: what a JSON object holds beside its rows.
    """

    name: str
    rows: list[Row]
    bad: list[tuple[str, str]]
    beside: dict[str, Any]


def read_table(path: Path) -> Table:
    """Of a TSV file of VLMEvalKit, a parquet file of the Hugging Face hub, a JSON file or one of
    JSON lines; or of a folder, all parquet files in it.

    Raises:
        DataError: there is none, or it is of another kind.
    """
    files = [path]
    if path.is_dir():
        files = sorted(path.rglob("*.parquet"))
        if not files:
            raise DataError(f"{named(path)}: no .parquet file in this folder")
    table = Table(path.stem, [], [], {})
    for file in files:
        reader = READERS.get(file.suffix.lower())
        found = reader(file) if reader else _read_json(file, table.beside)
        for where, row in found:
            where = f"{file.name}, {where}" if len(files) > 1 else where
            if isinstance(row, DataError):
                table.bad.append((where, str(row)))
            else:
                table.rows.append(Row(where, *row))
    if not table.rows:
        why = f": {table.bad[0][0]}: {table.bad[0][1]}" if table.bad else ""
        raise DataError(f"{named(path)}: no questions in it{why}")
    return table


def _read_json(path: Path, beside: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    data = read_file(path, LARGEST)
    try:
        tree = json.loads(data)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise DataError(f"{named(path)}, line {error.lineno}: not JSON: {error.msg}") from None
        for line, value in read_rows(path):
            yield f"line {line}", _row(value)
        return
    except (ValueError, RecursionError) as error:
        raise DataError(f"{named(path)}: not JSON: {named(error)}") from None
    rows = [tree]
    if isinstance(tree, list):
        rows = tree
    elif isinstance(tree, dict) and isinstance(tree.get("questions"), list):
        rows = tree["questions"]
        beside |= {key: value for key, value in tree.items() if key != "questions"}
    for number, value in enumerate(rows, 1):
        yield f"row {number}", _row(value)


def _row(value: Any) -> Any:
    if isinstance(value, DataError):
        return DataError(str(value).partition(": ")[2])  # which names the line, too
    if not isinstance(value, dict):
        return DataError(f"no object, but {named(json.dumps(value))}")
    return ({key: one for key, one in value.items() if one not in (None, "")},)
