"""Parquet files of the Hugging Face hub: pictures as structs of bytes, alone or in lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from suder.inputs.files import DataError
from suder.storage.shown import named


def read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, values, picture, read) of each row, see `Row`.

    Raises:
        DataError: it is no parquet file.
        ImportError: pyarrow is missing.
    """
    number = 0
    for group in range(_file(path).num_row_groups):
        for place, values in enumerate(_rows(path, group)):
            number += 1
            pictures = _pictures_of(values)
            digest = hashlib.sha256(b"".join(pictures)).hexdigest() if pictures else ""
            plain = {key: one for key, one in values.items()
                     if one not in (None, "") and not _structs(one)}  # fmt: skip
            yield f"row {number}", (plain, digest, partial(_pictures, path, group, place))


def _pictures(path: Path, group: int, place: int) -> list[bytes]:
    return _pictures_of(_rows(path, group)[place])


@lru_cache(1)
def _rows(path: Path, group: int) -> list[dict[str, Any]]:
    """A row group; its rows are asked for one after the other."""
    rows: list[dict[str, Any]] = _file(path).read_row_group(group).to_pylist()
    return rows


def _file(path: Path) -> Any:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError("parquet files take pyarrow: pip install 'suder[parquet]'") from error
    try:
        return ParquetFile(path)
    except (ArrowInvalid, OSError) as error:
        raise DataError(f"{named(path)}: no parquet file: {named(error)}") from None


def _structs(value: Any) -> list[dict[str, Any]]:
    """The pictures that a value is."""
    some = value if isinstance(value, list) else [value]
    return [one for one in some if isinstance(one, dict) and "bytes" in one]


def _pictures_of(values: dict[str, Any]) -> list[bytes]:
    found = [struct["bytes"] for value in values.values() for struct in _structs(value)]
    return [one for one in found if one]
