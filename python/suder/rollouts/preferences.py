"""Pairs as others read them, and as `suder train --rollouts` does.

TRL's preference format with pictures is `prompt`, `chosen`, `rejected` (messages) and `images`
(checked with trl 1.16); ms-swift's is `messages`, `rejected_response` and `images` (4.6). An answer
is text in both: captions can be told, drawings can not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suder.inputs.files import DataError, read_file
from suder.inputs.pictures import MAX_BYTES
from suder.rollouts.schema import arrow

Pairs = Sequence[tuple[int, int]]
IMAGE = "<image>"  # ms-swift's word for a picture's place


def captions_only(table: Any, pairs: Pairs) -> list[tuple[int, int]]:
    """The pairs of captions."""
    directions = table["direction"].to_pylist()
    return [pair for pair in pairs if directions[pair[0]] == "understanding"]


def trl_table(table: Any, pairs: Pairs, question: str | None, embed: bool) -> Any:
    """For TRL's trainers: a `pyarrow.Table` that `datasets` reads with its pictures.

    Args:
        embed: with the pictures' bytes; else by their paths.
    """
    datasets, pa = arrow("datasets"), arrow()
    messages = [{"role": datasets.Value("string"), "content": datasets.Value("string")}]
    features = datasets.Features(
        {
            "images": datasets.List(datasets.Image()),
            **{name: messages for name in ("prompt", "chosen", "rejected")},
        }
    )
    rows = [
        {
            "images": [{"path": one["input"], "bytes": _bytes(one["input"]) if embed else None}],
            "prompt": _asked(one, question),
            "chosen": [{"role": "assistant", "content": one["text"]}],
            "rejected": [{"role": "assistant", "content": other["text"]}],
        }
        for one, other in _rows(table, pairs)
    ]
    return pa.Table.from_pylist(rows, schema=features.arrow_schema)


def swift_rows(table: Any, pairs: Pairs, question: str | None) -> list[dict[str, Any]]:
    """For ms-swift: rows of a JSONL file."""
    rows = []
    for one, other in _rows(table, pairs):
        *before, asked = _asked(one, question)
        asked["content"] = IMAGE + asked["content"]
        answer = {"role": "assistant", "content": one["text"]}
        rows.append(
            {
                "messages": [*before, asked, answer],
                "rejected_response": other["text"],
                "images": [one["input"]],
            }
        )
    return rows


def own_table(table: Any, pairs: Pairs) -> Any:
    """A table of candidates in which each pair is a group, for `suder train --rollouts`.

    `original_group` has the group that both come from.
    """
    pa = arrow()
    rows = [row for pair in pairs for row in pair]
    taken = table.take(pa.array(rows, pa.int64()))
    numbers = pa.array([i // 2 for i in range(len(rows))], pa.int64())
    original = taken["group"]
    taken = taken.set_column(taken.column_names.index("group"), "group", numbers)
    if "original_group" in taken.column_names:
        return taken
    return taken.append_column("original_group", original)


def _rows(table: Any, pairs: Pairs) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    names = ("input", "question", "system_prompt", "text")
    columns = {name: table[name].to_pylist() for name in names}
    return [
        tuple({name: values[row] for name, values in columns.items()} for row in pair)  # type: ignore[misc]
        for pair in pairs
    ]


def _asked(row: dict[str, Any], question: str | None) -> list[dict[str, str]]:
    asked = question or row["question"]
    if not asked:
        raise DataError(
            f"the rows do not say what was asked about {row['input']}: give --question TEXT"
        )
    before = [{"role": "system", "content": row["system_prompt"]}] if row["system_prompt"] else []
    return [*before, {"role": "user", "content": asked}]


def _bytes(path: str) -> bytes:
    return read_file(Path(path), MAX_BYTES)
