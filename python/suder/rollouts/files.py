"""Reading and writing tables of candidates as Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suder.inputs.files import DataError
from suder.rollouts.schema import COLUMNS, arrow, schema
from suder.storage.files import whole
from suder.storage.fingerprint import hash_file
from suder.storage.shown import named


def write_table(path: Path, table: Any) -> None:
    """Writes a `pyarrow.Table`, whole or not at all.

    Raises:
        WriteError: the disk is full, or writing failed otherwise.
    """
    parquet = arrow("pyarrow.parquet")
    with whole(path, table.nbytes) as partial:
        parquet.write_table(table, partial, compression="zstd")


def find_files(place: str | Path) -> list[Path]:
    """The file of that name, or the Parquet files in the folder, in order of their names.

    Raises:
        DataError: there is none.
    """
    place = Path(place)
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise DataError(f"no file or folder {named(place)} of rollouts")
    found = sorted(path for path in place.glob("*.parquet") if path.is_file())
    if not found:
        raise DataError(
            f"no *.parquet in {named(place)}; `suder rollouts RUN --output DIR` writes such files, "
            "and a run with checkpoint.rollouts=parquet does so itself, into RUN/rollouts"
        )
    return found


def read_table(files: Sequence[Path]) -> Any:
    """The rows of all files, with the columns of `COLUMNS` in their types, then any others.

    Raises:
        DataError: a file is none, or lacks a column, or holds something else in one.
    """
    pa, parquet = arrow(), arrow("pyarrow.parquet")
    tables = []
    for path in files:
        try:
            table = parquet.ParquetFile(path).read()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{named(path)} cannot be read as Parquet: {named(error)}") from None
        tables.append(_checked(table, path))
    table = pa.concat_tables(tables, promote_options="default")
    if not table.num_rows:
        raise DataError(f"{named(files[0])}: no rows in it")
    return table


def digests(files: Sequence[Path]) -> dict[str, str]:
    """A hash of each file's bytes, by its name."""
    return {path.name: hash_file(path) for path in files}


def _checked(table: Any, path: Path) -> Any:
    pa = arrow()
    there = set(table.column_names)
    if missing := [name for name, _, may in COLUMNS if not may and name not in there]:
        raise DataError(
            f"{named(path)} is no file of rollouts: it lacks {', '.join(missing)}; "
            "docs/rollouts.md says what the columns are"
        )
    wanted = schema()
    columns = {}
    for name, kind, may in COLUMNS:
        if name not in there:
            columns[name] = pa.nulls(table.num_rows, wanted.field(name).type)
            continue
        try:
            columns[name] = table[name].cast(wanted.field(name).type)
        except pa.ArrowException as error:
            raise DataError(
                f"{named(path)}: column `{name}` takes {kind}, got {table[name].type}: "
                f"{named(error)}"
            ) from None
        if not may and name != "reward" and columns[name].null_count:
            row = columns[name].is_null().to_pylist().index(True)
            raise DataError(f"{named(path)}, row {row}: `{name}` is null")
    columns |= {name: table[name] for name in table.column_names if name not in columns}
    return pa.table(columns)
